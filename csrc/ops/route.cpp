// Which experts each row goes to, and with what weights.
#include <cmath>
#include <limits>

#include "../ops.h"
#include "../parallel.h"

namespace ramet::RAMET_ISA {
namespace {

// The places of the `count` largest of `size` values, largest first, of equal ones the lower place. One that is no
// number comes behind every other.
void best(const float* values, Index size, Index count, std::int32_t* places) {
  const auto before = [](float x, float y) { return x > y || (x == x && y != y); };
  Index kept = 0;
  for (Index e = 0; e < size; ++e) {
    Index at = kept < count ? kept++ : count;
    if (at == count) {
      if (!before(values[e], values[places[at - 1]])) continue;
      --at;
    }
    for (; at > 0 && before(values[e], values[places[at - 1]]); --at) places[at] = places[at - 1];
    places[at] = static_cast<std::int32_t>(e);
  }
}

float score(float logit, Score kind) {
  if (kind == Score::sigmoid) return 1.0f / (1.0f + std::exp(-logit));
  const float softplus = logit > 20.0f ? logit : std::log1p(std::exp(logit));
  return std::sqrt(softplus);
}

// Values of groups that are not among the best `kept` become -inf. A group counts as its two best values together.
void keep_groups(float* values, Index size, Index groups, Index kept, float* totals, std::int32_t* order) {
  const Index each = size / groups;
  for (Index g = 0; g < groups; ++g) {
    std::int32_t two[2];
    best(values + g * each, each, 2, two);
    totals[g] = values[g * each + two[0]] + values[g * each + two[1]];
  }
  best(totals, groups, groups, order);
  for (Index i = kept; i < groups; ++i)
    for (Index e = 0; e < each; ++e) values[order[i] * each + e] = -std::numeric_limits<float>::infinity();
}

}  // namespace

void route(const Route& a) {
  parallel_for(a.rows, static_cast<double>(a.rows * a.experts * a.top_k), [&](Index r) {
    const float* const logits = a.logits + r * a.stride;
    std::int32_t* const chosen = a.chosen + r * a.top_k;
    float* const weights = a.weights + r * a.top_k;
    best(logits, a.experts, a.top_k, chosen);
    const float largest = logits[chosen[0]];
    float total = 0;
    for (Index i = 0; i < a.top_k; ++i) {
      weights[i] = std::exp(logits[chosen[i]] - largest);
      total += weights[i];
    }
    for (Index i = 0; i < a.top_k; ++i) weights[i] /= total;
  });
}

void route_by_score(const RouteByScore& a) {
  parallel_for(a.rows, static_cast<double>(a.rows * a.experts * (a.top_k + 8)), [&](Index r) {
    const float* const logits = a.logits + r * a.stride;
    float* const ranked = a.ranked + r * (a.experts + a.groups);
    std::int32_t* const chosen = a.chosen + r * a.top_k;
    float* const weights = a.weights + r * a.top_k;
    for (Index e = 0; e < a.experts; ++e) ranked[e] = score(logits[e], a.score) + a.bias[e];
    if (a.groups_kept < a.groups)
      keep_groups(ranked, a.experts, a.groups, a.groups_kept, ranked + a.experts, a.order + r * a.groups);
    best(ranked, a.experts, a.top_k, chosen);
    float total = 0;
    for (Index i = 0; i < a.top_k; ++i) {
      weights[i] = score(logits[chosen[i]], a.score);
      total += weights[i];
    }
    const float divisor = a.normalise ? total + 1e-20f : 1.0f;
    for (Index i = 0; i < a.top_k; ++i) weights[i] = weights[i] / divisor * a.scale;
  });
}

}  // namespace ramet::RAMET_ISA
