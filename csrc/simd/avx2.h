// Part of simd.h: vectors of 8 float32 and of as many words: AVX2 and FMA.
#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

namespace ramet::RAMET_ISA {

struct Vec {
  static constexpr int width = 8;
  __m256 v;
};

RAMET_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
RAMET_INLINE Vec all(float x) { return {_mm256_set1_ps(x)}; }
RAMET_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
RAMET_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
RAMET_INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
RAMET_INLINE Vec load_first(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
RAMET_INLINE void store_first(float* p, Vec a, int n) { _mm256_maskstore_ps(p, first(n), a.v); }
RAMET_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
RAMET_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
RAMET_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
RAMET_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
RAMET_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
// A NaN in b is kept, one in a is not.
RAMET_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
RAMET_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
RAMET_INLINE Vec keep_first(Vec a, int n, Vec other) {
  return {_mm256_blendv_ps(other.v, a.v, _mm256_castsi256_ps(first(n)))};
}
// bfloat16, widened.
RAMET_INLINE Vec load(const std::uint16_t* p) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
}
RAMET_INLINE Vec load_first(const std::uint16_t* p, int n) {
  std::uint16_t lanes[8] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
// a where x < limit is false, 0 where it is true.
RAMET_INLINE Vec zero_where_less(Vec a, Vec x, Vec limit) {
  return {_mm256_and_ps(a.v, _mm256_cmp_ps(x.v, limit.v, _CMP_NLT_UQ))};
}
RAMET_INLINE Vec nearest(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// 2**a for whole a in [-126, 127].
RAMET_INLINE Vec power_of_two(Vec a) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(a.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))};
}
// Two vectors of bfloat16 that share 32-bit lanes: `low` in the low halves, `high` in the high ones.
RAMET_INLINE void load_halves(const std::uint16_t* p, Vec& low, Vec& high) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  low.v = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  high.v = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// Vec::width words of 32 bits, at any address.
struct Bits {
  __m256i v;
};

RAMET_INLINE Bits all_bits(std::uint32_t x) { return {_mm256_set1_epi32(static_cast<int>(x))}; }
RAMET_INLINE Bits load_bits(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
RAMET_INLINE void store_bits(void* p, Bits a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a.v); }
RAMET_INLINE Bits operator&(Bits a, Bits b) { return {_mm256_and_si256(a.v, b.v)}; }
template <int n>
RAMET_INLINE Bits shift_left(Bits a) {
  return {_mm256_slli_epi32(a.v, n)};
}
template <int n>
RAMET_INLINE Bits shift_right(Bits a) {
  return {_mm256_srli_epi32(a.v, n)};
}
// Both halves of each word, as signed numbers.
template <int n>
RAMET_INLINE Bits shift_halves_right(Bits a) {
  return {_mm256_srai_epi16(a.v, n)};
}
RAMET_INLINE Vec as_floats(Bits a) { return {_mm256_castsi256_ps(a.v)}; }
// Each byte, less than 16, becomes the byte that the table has there.
RAMET_INLINE Bits look_up(const std::uint8_t (&table)[16], Bits a) {
  const __m128i once = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(once), a.v)};
}
RAMET_INLINE Bits max_bytes(Bits a, Bits b) { return {_mm256_max_epu8(a.v, b.v)}; }
RAMET_INLINE bool has_byte(Bits a, std::uint8_t byte) {
  return _mm256_movemask_epi8(_mm256_cmpeq_epi8(a.v, _mm256_set1_epi8(static_cast<char>(byte)))) != 0;
}
// Vec::width rows of as many words, `stride` bytes apart: out[w] gets word w of every row.
RAMET_INLINE void transpose(const void* from, std::ptrdiff_t stride, Bits (&out)[8]) {
  const char* const at = static_cast<const char*>(from);
  for (int w = 0; w < 8; w += 4) {
    __m256 rows[4];  // four words of one row, and of the fourth after it
    for (int r = 0; r < 4; ++r) {
      const auto four = [&](int row) { return _mm_loadu_ps(reinterpret_cast<const float*>(at + row * stride) + w); };
      rows[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(four(r)), four(r + 4), 1);
    }
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1]));
    const __m256d b = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3]));
    const __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1]));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
    out[w].v = _mm256_castpd_si256(_mm256_unpacklo_pd(a, b));
    out[w + 1].v = _mm256_castpd_si256(_mm256_unpackhi_pd(a, b));
    out[w + 2].v = _mm256_castpd_si256(_mm256_unpacklo_pd(c, d));
    out[w + 3].v = _mm256_castpd_si256(_mm256_unpackhi_pd(c, d));
  }
}

}  // namespace ramet::RAMET_ISA
