// Part of simd.h: vectors of 16 float32 and of as many words: AVX-512.
#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

namespace ramet::RAMET_ISA {

struct Vec {
  static constexpr int width = 16;
  __m512 v;
};

RAMET_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
RAMET_INLINE Vec all(float x) { return {_mm512_set1_ps(x)}; }
RAMET_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
RAMET_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
RAMET_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
RAMET_INLINE Vec load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
RAMET_INLINE void store_first(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
// bfloat16, widened.
RAMET_INLINE Vec widened(__m256i halves) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
RAMET_INLINE Vec load(const std::uint16_t* p) {
  return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
RAMET_INLINE Vec load_first(const std::uint16_t* p, int n) { return widened(_mm256_maskz_loadu_epi16(first(n), p)); }
RAMET_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
RAMET_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
RAMET_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
RAMET_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
RAMET_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
// A NaN in b is kept, one in a is not.
RAMET_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
RAMET_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
RAMET_INLINE Vec keep_first(Vec a, int n, Vec other) { return {_mm512_mask_blend_ps(first(n), other.v, a.v)}; }
// a where x < limit is false, 0 where it is true.
RAMET_INLINE Vec zero_where_less(Vec a, Vec x, Vec limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), a.v)};
}
RAMET_INLINE Vec nearest(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// 2**a for whole a in [-126, 127].
RAMET_INLINE Vec power_of_two(Vec a) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
// Two vectors of bfloat16 that share 32-bit lanes: `low` in the low halves, `high` in the high ones.
RAMET_INLINE void load_halves(const std::uint16_t* p, Vec& low, Vec& high) {
  const __m512i both = _mm512_loadu_si512(p);
  low.v = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  high.v = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// Vec::width words of 32 bits, at any address.
struct Bits {
  __m512i v;
};

RAMET_INLINE Bits all_bits(std::uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
RAMET_INLINE Bits load_bits(const void* p) { return {_mm512_loadu_si512(p)}; }
RAMET_INLINE void store_bits(void* p, Bits a) { _mm512_storeu_si512(p, a.v); }
RAMET_INLINE Bits operator&(Bits a, Bits b) { return {_mm512_and_si512(a.v, b.v)}; }
template <int n>
RAMET_INLINE Bits shift_left(Bits a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
RAMET_INLINE Bits shift_right(Bits a) {
  return {_mm512_srli_epi32(a.v, n)};
}
// Both halves of each word, as signed numbers.
template <int n>
RAMET_INLINE Bits shift_halves_right(Bits a) {
  return {_mm512_srai_epi16(a.v, n)};
}
RAMET_INLINE Vec as_floats(Bits a) { return {_mm512_castsi512_ps(a.v)}; }
// Each byte, less than 16, becomes the byte that the table has there.
RAMET_INLINE Bits look_up(const std::uint8_t (&table)[16], Bits a) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), a.v)};
}
RAMET_INLINE Bits max_bytes(Bits a, Bits b) { return {_mm512_max_epu8(a.v, b.v)}; }
RAMET_INLINE bool has_byte(Bits a, std::uint8_t byte) {
  return _mm512_cmpeq_epi8_mask(a.v, _mm512_set1_epi8(static_cast<char>(byte))) != 0;
}
// Vec::width rows of as many words, `stride` bytes apart: out[w] gets word w of every row.
RAMET_INLINE void transpose(const void* from, std::ptrdiff_t stride, Bits (&out)[16]) {
  const char* const at = static_cast<const char*>(from);
  for (int w = 0; w < 16; w += 4) {
    __m512 rows[4];  // in each quarter four words of another row
    for (int r = 0; r < 4; ++r) {
      const auto four = [&](int row) { return _mm_loadu_ps(reinterpret_cast<const float*>(at + row * stride) + w); };
      rows[r] = _mm512_castps128_ps512(four(r));
      rows[r] = _mm512_insertf32x4(rows[r], four(r + 4), 1);
      rows[r] = _mm512_insertf32x4(rows[r], four(r + 8), 2);
      rows[r] = _mm512_insertf32x4(rows[r], four(r + 12), 3);
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
    const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
    out[w].v = _mm512_castpd_si512(_mm512_unpacklo_pd(a, b));
    out[w + 1].v = _mm512_castpd_si512(_mm512_unpackhi_pd(a, b));
    out[w + 2].v = _mm512_castpd_si512(_mm512_unpacklo_pd(c, d));
    out[w + 3].v = _mm512_castpd_si512(_mm512_unpackhi_pd(c, d));
  }
}

}  // namespace ramet::RAMET_ISA
