// Layer norm: subtracts the mean, divides by the standard deviation.
#include <cmath>

#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

void layer_norm(const LayerNorm& a) {
  parallel_for(a.rows, 4.0 * static_cast<double>(a.rows * a.size), [&](Index r) {
    const float* const x = a.x + r * a.x_stride;
    float* const out = a.out + r * a.size;
    const float size = static_cast<float>(a.size);
    Vec total = zero(), squares = zero();
    over_columns(a.size, [&](Index c, int lanes) { total = total + load_lanes(x + c, lanes); });
    const Vec mean = all(sum(total) / size);
    over_columns(a.size, [&](Index c, int lanes) {
      const Vec away = keep_first(load_lanes(x + c, lanes) - mean, lanes, zero());
      squares = fma(away, away, squares);
    });
    const Vec scale = all(1.0f / std::sqrt(sum(squares) / size + a.eps));
    over_columns(a.size, [&](Index c, int lanes) {
      const Vec normed = (load_lanes(x + c, lanes) - mean) * scale;
      store_lanes(out + c, fma(normed, load_lanes(a.weight + c, lanes), load_lanes(a.bias + c, lanes)), lanes);
    });
  });
}

}  // namespace ramet::RAMET_ISA
