// Vectors of float32, one implementation per instruction set, chosen by the macros the translation unit is built with, and
// what is written in terms of them.
//
// Everything lives in namespace ramet::RAMET_ISA, because the same sources are compiled once per instruction set and
// linked together. Within an instruction set every product that is summed is a fused multiply-add (the portable one,
// which has none, multiplies and adds), so that a value has the same bits whatever the shape of the block that computed
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define RAMET_INLINE inline __attribute__((always_inline))
#define RAMET_INLINE_LAMBDA __attribute__((always_inline))

#if defined(RAMET_AVX512)
#include "simd/avx512.h"
#elif defined(RAMET_AVX2)
#include "simd/avx2.h"
#else
#include "simd/portable.h"
#endif

namespace ramet::RAMET_ISA {

// `to` becomes x in its own precision: bfloat16 (std::uint16_t) by rounding to the nearest, ties to even.
RAMET_INLINE void put(float& to, float x) { to = x; }
RAMET_INLINE void put(std::uint16_t& to, float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
  to = static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);  // no number stays none
}

// A number in float32.
RAMET_INLINE float widen(float x) { return x; }
RAMET_INLINE float widen(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The sum and the largest of all lanes: halves are folded onto each other, the same tree for every instruction set.
RAMET_INLINE float sum(Vec a) {
  float lane[Vec::width];
  store(lane, a);
  for (int half = Vec::width / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}
RAMET_INLINE float largest(Vec a) {
  float lane[Vec::width];
  store(lane, a);
  for (int half = Vec::width / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
  return lane[0];
}

// e**x to about 1 ulp. 0 below -87.3 (no subnormals), and saturated above 88 at e**88.
RAMET_INLINE Vec exp(Vec x) {
  const Vec lowest = all(-87.3f);
  const Vec clamped = max(lowest, min(all(88.0f), x));
  const Vec n = nearest(clamped * all(1.44269504f));
  // ln 2 in two parts: the first has few enough bits that n times it is exact.
  const Vec r = fma(n, all(-1.42860677e-6f), fma(n, all(-0.693145752f), clamped));
  Vec q = all(0.00138143229f);
  q = fma(q, r, all(0.00836885162f));
  q = fma(q, r, all(0.0416684002f));
  q = fma(q, r, all(0.166665196f));
  q = fma(q, r, all(0.49999994f));
  const Vec e = fma(r * r, q, r) + all(1.0f);
  return zero_where_less(e * power_of_two(n), x, lowest);
}

RAMET_INLINE Vec sigmoid(Vec x) { return all(1.0f) / (all(1.0f) + exp(zero() - x)); }
RAMET_INLINE Vec silu(Vec x) { return x / (all(1.0f) + exp(zero() - x)); }

// Calls body(column, lanes) over `columns` columns, a vector at a time; `lanes` is less than a whole vector at the end
// only.
template <class Body>
RAMET_INLINE void over_columns(std::ptrdiff_t columns, Body body) {
  std::ptrdiff_t c = 0;
  for (; c + Vec::width <= columns; c += Vec::width) body(c, Vec::width);
  if (c < columns) body(c, static_cast<int>(columns - c));
}
template <class Element>
RAMET_INLINE Vec load_lanes(const Element* p, int lanes) {
  return lanes == Vec::width ? load(p) : load_first(p, lanes);
}
RAMET_INLINE void store_lanes(float* p, Vec a, int lanes) {
  if (lanes == Vec::width)
    store(p, a);
  else
    store_first(p, a, lanes);
}

}  // namespace ramet::RAMET_ISA
