// Rotary position embedding of some columns of each head.
#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

void rope(const Rope& a) {
  const Index columns = a.heads * a.size, half = a.rotary / 2;
  const Vec sign = all(a.inverse ? -1.0f : 1.0f);
  parallel_for(a.rows, 2.0 * static_cast<double>(a.rows * columns), [&](Index r) {
    const float* const cosines = a.table + r * a.rotary;
    const float* const sines = cosines + half;
    float* const row = a.out + r * columns;
    std::memcpy(row, a.x + r * a.x_stride, static_cast<std::size_t>(columns) * sizeof(float));
    for (Index h = 0; h < a.heads; ++h) {
      float* const out = row + h * a.size + a.start;
      if (a.interleaved) {
        for (Index i = 0; i < half; ++i) {
          const float left = out[2 * i], right = out[2 * i + 1], sine = a.inverse ? -sines[i] : sines[i];
          out[2 * i] = left * cosines[i] - right * sine;
          out[2 * i + 1] = right * cosines[i] + left * sine;
        }
        continue;
      }
      over_columns(half, [&](Index c, int lanes) {
        const Vec left = load_lanes(out + c, lanes), right = load_lanes(out + half + c, lanes);
        const Vec cosine = load_lanes(cosines + c, lanes), sine = load_lanes(sines + c, lanes) * sign;
        store_lanes(out + c, left * cosine - right * sine, lanes);
        store_lanes(out + half + c, right * cosine + left * sine, lanes);
      });
    }
  });
}

}  // namespace ramet::RAMET_ISA
