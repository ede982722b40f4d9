// Root-mean-square norm of one group of columns, shared by the norms and by rope.
#pragma once

#include <cmath>

#include "../ops.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

// The sum of squares: four sums, vectors dealt to them in turn, so the order depends on the size alone.
RAMET_INLINE float sum_of_squares(const float* x, Index size) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  Index c = 0;
  for (; c + 4 * Vec::width <= size; c += 4 * Vec::width)
    for (int j = 0; j < 4; ++j) {
      const Vec v = load(x + c + j * Vec::width);
      sums[j] = fma(v, v, sums[j]);
    }
  for (int j = 0; c < size; c += Vec::width, ++j) {
    const Index left = size - c;
    const Vec v = load_lanes(x + c, left < Vec::width ? static_cast<int>(left) : Vec::width);
    sums[j] = fma(v, v, sums[j]);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

RAMET_INLINE float inverse_rms(const float* x, Index size, float eps) {
  return 1.0f / std::sqrt(sum_of_squares(x, size) / static_cast<float>(size) + eps);
}

}  // namespace ramet::RAMET_ISA
