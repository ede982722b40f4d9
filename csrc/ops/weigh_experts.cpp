// The weights of experts that a token's id chose.
#include <cmath>

#include "../ops.h"
#include "../parallel.h"

namespace ramet::RAMET_ISA {

void weigh_experts(const WeighExperts& a) {
  parallel_for(a.rows, static_cast<double>(a.rows * a.top_k * 40), [&](Index r) {
    const std::int32_t* const chosen = a.chosen + r * a.top_k;
    float* const weights = a.weights + r * a.top_k;
    float total = 0;
    for (Index i = 0; i < a.top_k; ++i) {
      const float logit = a.logits[r * a.stride + chosen[i]];
      weights[i] = std::sqrt(logit > 20.0f ? logit : std::log1p(std::exp(logit)));
      total += weights[i];
    }
    for (Index i = 0; i < a.top_k; ++i) weights[i] = weights[i] / (total + 1e-20f) * a.scale;
  });
}

}  // namespace ramet::RAMET_ISA
