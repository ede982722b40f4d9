// Vectors in half precision as float32 of unit length.
#include <cmath>
#include <cstring>

#include "../ops.h"
#include "norms.h"

namespace ramet::RAMET_ISA {
namespace {

// The exponent of a half is rebased by a multiplication, which is exact, and right for subnormal ones too.
void widen(const std::uint16_t* halves, Index size, float* out) {
  for (Index i = 0; i < size; ++i) {
    const std::uint32_t half = halves[i], bits = (half & 0x7fffu) << 13 | (half & 0x8000u) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    out[i] = value * 0x1p112f;
  }
}

}  // namespace

void unit_vectors(const UnitVectors& a) {
  for (Index row = 0; row < a.count; ++row) {
    const Index from = a.from == nullptr ? row : a.from[row];
    float* const out = a.out + row * a.dimensions;
    if (from < 0) {
      std::memset(out, 0, sizeof(float) * static_cast<std::size_t>(a.dimensions));
      continue;
    }
    widen(a.halves + from * a.dimensions, a.dimensions, out);
    const float length = std::sqrt(sum_of_squares(out, a.dimensions));
    if (length == 0) continue;
    over_columns(a.dimensions, [&](Index c, int lanes) {
      store_lanes(out + c, load_lanes(out + c, lanes) / all(length), lanes);
    });
  }
}

}  // namespace ramet::RAMET_ISA
