// The gated delta rule, token by token, a strip of the state's value columns at a time: the lanes are value columns,
// which do not depend on each other, so a strip runs through all tokens of the span while it is in the L1 cache.
#include <cmath>

#include "../ops.h"
#include "../parallel.h"
#include "norms.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr int kVecs = 2;                        // vectors per strip
constexpr Index kStrip = kVecs * Vec::width;    // value columns per strip
constexpr Index kTokens = 16;                   // tokens whose q and k are prepared together
constexpr int kChains = 4;                      // sums over k in flight: key i goes to chain i % 4

// One token on one strip. v and y are `lanes[j]` wide per vector; the strip itself is whole vectors.
RAMET_INLINE void step(float* state, Index stride, Index k_dim, const float* q, const float* k, float decay, float beta,
                       const float* v, float* y, const int (&lanes)[kVecs]) {
  Vec sums[kChains][kVecs];
  const auto clear = [&] {
    for (int i = 0; i < kChains; ++i)
      for (int j = 0; j < kVecs; ++j) sums[i][j] = zero();
  };
  const auto total = [&](int j) { return (sums[0][j] + sums[1][j]) + (sums[2][j] + sums[3][j]); };

  clear();
  Index d = 0;
  const auto recall = [&](Index i, int chain) {
    const Vec key = all(k[i]);
    for (int j = 0; j < kVecs; ++j)
      sums[chain][j] = fma(load(state + i * stride + j * Vec::width), key, sums[chain][j]);
  };
  for (; d + kChains <= k_dim; d += kChains)
    for (int i = 0; i < kChains; ++i) recall(d + i, i);
  for (int i = 0; d < k_dim; ++d, ++i) recall(d, i);

  const Vec fade = all(decay);
  Vec delta[kVecs];
  for (int j = 0; j < kVecs; ++j)
    delta[j] = all(beta) * (load_lanes(v + j * Vec::width, lanes[j]) - fade * total(j));

  clear();
  d = 0;
  const auto update = [&](Index i, int chain) {
    const Vec key = all(k[i]), query = all(q[i]);
    for (int j = 0; j < kVecs; ++j) {
      float* const at = state + i * stride + j * Vec::width;
      const Vec s = fma(key, delta[j], fade * load(at));
      store(at, s);
      sums[chain][j] = fma(s, query, sums[chain][j]);
    }
  };
  for (; d + kChains <= k_dim; d += kChains)
    for (int i = 0; i < kChains; ++i) update(d + i, i);
  for (int i = 0; d < k_dim; ++d, ++i) update(d, i);
  for (int j = 0; j < kVecs; ++j) store_lanes(y + j * Vec::width, total(j), lanes[j]);
}

void normalise(const float* x, Index size, float factor, float* out) {
  const Vec scale = all(1.0f / std::sqrt(sum_of_squares(x, size) + 1e-6f));
  over_columns(size, [&](Index c, int lanes) {
    store_lanes(out + c, load_lanes(x + c, lanes) * scale * all(factor), lanes);
  });
}

// One value head of one session.
void head(const DeltaRule& a, Index s, Index h) {
  const Index first = a.spans.offsets[s], length = a.spans.offsets[s + 1] - first;
  const Index key_columns = a.k_heads * a.k_dim, key_head = h / (a.v_heads / a.k_heads);
  const float factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.k_dim)));
  float* const state = a.spans.states[s] + a.state_offset + h * a.k_dim * a.v_dim;
  const Index strips = (a.v_dim + kStrip - 1) / kStrip;

  float* const q = scratch(1, static_cast<std::size_t>(kTokens * 2 * a.k_dim + a.k_dim * kStrip));
  float* const k = q + kTokens * a.k_dim;
  float* const copy = k + kTokens * a.k_dim;
  float decay[kTokens], beta[kTokens];

  for (Index begin = 0; begin < length; begin += kTokens) {
    const Index tokens = begin + kTokens < length ? kTokens : length - begin;
    for (Index t = 0; t < tokens; ++t) {
      const Index row = first + begin + t;
      const float* const x = a.qkv + row * a.qkv_stride + key_head * a.k_dim;
      normalise(x, a.k_dim, factor, q + t * a.k_dim);
      normalise(x + key_columns, a.k_dim, 1.0f, k + t * a.k_dim);
      const double step_size = static_cast<double>(a.a[row * a.a_stride + h]) + static_cast<double>(a.dt_bias[h]);
      const double softplus = step_size > 20 ? step_size : std::log1p(std::exp(step_size));
      decay[t] = static_cast<float>(std::exp(-std::exp(static_cast<double>(a.A_log[h])) * softplus));
      beta[t] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(a.b[row * a.b_stride + h]))));
    }
    for (Index strip = 0; strip < strips; ++strip) {
      const Index column = strip * kStrip;
      int lanes[kVecs];
      bool whole = true;
      for (int j = 0; j < kVecs; ++j) {
        const Index left = a.v_dim - column - j * Vec::width;
        lanes[j] = left >= Vec::width ? Vec::width : left > 0 ? static_cast<int>(left) : 0;
        whole = whole && lanes[j] == Vec::width;
      }
      // A copy with its rows side by side where it pays (rows of the state share cache sets) or is needed (a narrow
      // strip, whose vectors would reach into the next row).
      const bool copied = tokens > 1 || !whole;
      const auto move = [&](bool in) {
        for (Index i = 0; i < a.k_dim; ++i)
          for (int j = 0; j < kVecs; ++j) {
            float* const here = copy + i * kStrip + j * Vec::width;
            float* const there = state + i * a.v_dim + column + j * Vec::width;
            if (in)
              store(here, load_lanes(there, lanes[j]));
            else
              store_lanes(there, load(here), lanes[j]);
          }
      };
      if (copied) move(true);
      for (Index t = 0; t < tokens; ++t) {
        const Index row = first + begin + t;
        const float* const v = a.qkv + row * a.qkv_stride + 2 * key_columns + h * a.v_dim + column;
        float* const y = a.out + (row * a.v_heads + h) * a.v_dim + column;
        step(copied ? copy : state + column, copied ? kStrip : a.v_dim, a.k_dim, q + t * a.k_dim, k + t * a.k_dim,
             decay[t], beta[t], v, y, lanes);
      }
      if (copied) move(false);
    }
  }
}

}  // namespace

void delta_rule(const DeltaRule& a) {
  const Index rows = a.spans.offsets[a.spans.count];
  const double cost = static_cast<double>(rows) * static_cast<double>(a.v_heads * a.k_dim * a.v_dim);
  parallel_for(a.spans.count * a.v_heads, cost, [&](Index piece) { head(a, piece / a.v_heads, piece % a.v_heads); });
}

}  // namespace ramet::RAMET_ISA
