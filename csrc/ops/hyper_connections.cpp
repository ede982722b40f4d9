// Manifold-constrained hyper-connections: several residual streams, collapsed into a block's input, and mixed by a
// doubly stochastic matrix as its output is added.
#include <cmath>

#include "../ops.h"
#include "../parallel.h"
#include "norms.h"

namespace ramet::RAMET_ISA {
namespace {

float sigmoid_of(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// Divides every row (or column) of the square matrix by its sum.
void normalise(float* m, Index n, Index along, Index across, float eps) {
  for (Index i = 0; i < n; ++i) {
    float total = 0;
    for (Index j = 0; j < n; ++j) total += m[i * across + j * along];
    total += eps;
    for (Index j = 0; j < n; ++j) m[i * across + j * along] /= total;
  }
}

}  // namespace

void hyper_weights(const HyperWeights& a) {
  const Index n = a.count, columns = a.collapse_only ? n : (2 + n) * n;
  parallel_for(a.rows, static_cast<double>(a.rows * (n * a.hidden + 10 * n * n * a.iterations)), [&](Index r) {
    const float* const mixes = a.mixes + r * a.mixes_stride;
    float* const out = a.out + r * columns;
    // The mixes are of the streams as they are: the norm's factor is applied here.
    const float inverse = inverse_rms(a.streams + r * a.streams_stride, n * a.hidden, a.norm_eps);
    const auto mix = [&](Index i, Index kind) { return mixes[i] * inverse * a.scale[kind] + a.base[i]; };
    for (Index i = 0; i < n; ++i) out[i] = sigmoid_of(mix(i, 0)) + a.eps;
    if (a.collapse_only) return;
    for (Index i = n; i < 2 * n; ++i) out[i] = 2.0f * sigmoid_of(mix(i, 1));
    float* const comb = out + 2 * n;
    for (Index i = 0; i < n; ++i) {
      float* const row = comb + i * n;
      float top = -__builtin_inff(), total = 0;
      for (Index j = 0; j < n; ++j) {
        row[j] = mix(2 * n + i * n + j, 2);
        top = row[j] > top ? row[j] : top;
      }
      for (Index j = 0; j < n; ++j) {
        row[j] = std::exp(row[j] - top);
        total += row[j];
      }
      for (Index j = 0; j < n; ++j) row[j] = row[j] / total + a.eps;
    }
    // Sinkhorn-Knopp: columns first, then rows and columns in turn.
    normalise(comb, n, n, 1, a.eps);
    for (Index i = 1; i < a.iterations; ++i) {
      normalise(comb, n, 1, n, a.eps);
      normalise(comb, n, n, 1, a.eps);
    }
  });
}

void hyper_collapse(const HyperCollapse& a) {
  parallel_for(a.rows, static_cast<double>(a.rows * a.count * a.hidden), [&](Index r) {
    const float* const streams = a.streams + r * a.streams_stride;
    const float* const weights = a.weights + r * a.weights_stride;
    float* const out = a.out + r * a.hidden;
    over_columns(a.hidden, [&](Index c, int lanes) {
      Vec sum = zero();
      for (Index j = 0; j < a.count; ++j)
        sum = fma(all(weights[j]), load_lanes(streams + j * a.hidden + c, lanes), sum);
      store_lanes(out + c, sum, lanes);
    });
  });
}

void hyper_expand(const HyperExpand& a) {
  const Index n = a.count;
  parallel_for(a.rows, static_cast<double>(a.rows * n * n * a.hidden), [&](Index r) {
    const float* const streams = a.streams + r * a.streams_stride;
    const float* const y = a.y + r * a.y_stride;
    const float* const post = a.weights + r * a.weights_stride + n;
    const float* const comb = post + n;
    float* const out = a.out + r * n * a.hidden;
    over_columns(a.hidden, [&](Index c, int lanes) {
      const Vec added = load_lanes(y + c, lanes);
      for (Index i = 0; i < n; ++i) {
        Vec sum = zero();
        for (Index j = 0; j < n; ++j)
          sum = fma(all(comb[j * n + i]), load_lanes(streams + j * a.hidden + c, lanes), sum);
        store_lanes(out + i * a.hidden + c, fma(all(post[i]), added, sum), lanes);
      }
    });
  });
}

}  // namespace ramet::RAMET_ISA
