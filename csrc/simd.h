// Vectors of float32, one implementation per instruction set, chosen by the macros the translation unit is built with.
//
// Everything lives in namespace ramet::RAMET_ISA, because the same sources are compiled once per instruction set and
// linked together. Within an instruction set every product that is summed is a fused multiply-add (the portable one,
// which has none, multiplies and adds), so that a value has the same bits whatever the shape of the block that computed
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(RAMET_AVX512) || defined(RAMET_AVX2)
#include <immintrin.h>
#endif

#define RAMET_INLINE inline __attribute__((always_inline))
#define RAMET_INLINE_LAMBDA __attribute__((always_inline))

namespace ramet::RAMET_ISA {

#if defined(RAMET_AVX512)

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

#elif defined(RAMET_AVX2)

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

#else

typedef float Floats __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
typedef std::uint32_t Words __attribute__((vector_size(32)));
typedef std::int16_t Halves __attribute__((vector_size(32)));

struct Vec {
  static constexpr int width = 8;
  Floats v;
};

RAMET_INLINE Vec zero() { return {Floats{}}; }
RAMET_INLINE Vec all(float x) { return {Floats{x, x, x, x, x, x, x, x}}; }
RAMET_INLINE Vec load(const float* p) {
  Vec a;
  std::memcpy(&a.v, p, sizeof a.v);
  return a;
}
RAMET_INLINE void store(float* p, Vec a) { std::memcpy(p, &a.v, sizeof a.v); }
RAMET_INLINE Vec load_first(const float* p, int n) {
  float lanes[8] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
RAMET_INLINE void store_first(float* p, Vec a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
// bfloat16, widened.
RAMET_INLINE Vec load(const std::uint16_t* p) {
  Words bits;
  for (int i = 0; i < 8; ++i) bits[i] = static_cast<std::uint32_t>(p[i]) << 16;
  Vec a;
  std::memcpy(&a.v, &bits, sizeof a.v);
  return a;
}
RAMET_INLINE Vec load_first(const std::uint16_t* p, int n) {
  std::uint16_t lanes[8] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
RAMET_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
RAMET_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
RAMET_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
RAMET_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
RAMET_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
// A NaN in b is kept, one in a is not.
RAMET_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
RAMET_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
RAMET_INLINE Vec keep_first(Vec a, int n, Vec other) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return {lane < Ints{n, n, n, n, n, n, n, n} ? a.v : other.v};
}
// a where x < limit is false, 0 where it is true.
RAMET_INLINE Vec zero_where_less(Vec a, Vec x, Vec limit) { return {x.v < limit.v ? Floats{} : a.v}; }
// Exact for |a| < 2**22, which is all that is asked: adding 1.5 * 2**23 leaves no room for a fraction.
RAMET_INLINE Vec nearest(Vec a) {
  const Vec shift = all(12582912.0f);
  return (a + shift) - shift;
}
// 2**a for whole a in [-126, 127].
RAMET_INLINE Vec power_of_two(Vec a) {
  Vec result;
  const Ints biased = __builtin_convertvector(a.v, Ints) + 127;
  const Ints bits = biased << 23;
  std::memcpy(&result.v, &bits, sizeof bits);
  return result;
}
// Two vectors of bfloat16 that share 32-bit lanes: `low` in the low halves, `high` in the high ones.
RAMET_INLINE void load_halves(const std::uint16_t* p, Vec& low, Vec& high) {
  Words both;
  std::memcpy(&both, p, sizeof both);
  const Words lows = both << 16, highs = both & 0xffff0000u;
  std::memcpy(&low.v, &lows, sizeof lows);
  std::memcpy(&high.v, &highs, sizeof highs);
}

// Vec::width words of 32 bits, at any address.
struct Bits {
  Words v;
};

RAMET_INLINE Bits all_bits(std::uint32_t x) { return {Words{x, x, x, x, x, x, x, x}}; }
RAMET_INLINE Bits load_bits(const void* p) {
  Bits a;
  std::memcpy(&a.v, p, sizeof a.v);
  return a;
}
RAMET_INLINE void store_bits(void* p, Bits a) { std::memcpy(p, &a.v, sizeof a.v); }
RAMET_INLINE Bits operator&(Bits a, Bits b) { return {a.v & b.v}; }
template <int n>
RAMET_INLINE Bits shift_left(Bits a) {
  return {a.v << n};
}
template <int n>
RAMET_INLINE Bits shift_right(Bits a) {
  return {a.v >> n};
}
// Both halves of each word, as signed numbers.
template <int n>
RAMET_INLINE Bits shift_halves_right(Bits a) {
  Halves halves;
  std::memcpy(&halves, &a.v, sizeof halves);
  halves >>= n;
  return load_bits(&halves);
}
RAMET_INLINE Vec as_floats(Bits a) {
  Vec b;
  std::memcpy(&b.v, &a.v, sizeof b.v);
  return b;
}
// Each byte, less than 16, becomes the byte that the table has there.
RAMET_INLINE Bits look_up(const std::uint8_t (&table)[16], Bits a) {
  std::uint8_t bytes[sizeof a.v];
  store_bits(bytes, a);
  for (std::uint8_t& byte : bytes) byte = table[byte];
  return load_bits(bytes);
}
RAMET_INLINE Bits max_bytes(Bits a, Bits b) {
  std::uint8_t left[sizeof a.v], right[sizeof b.v];
  store_bits(left, a);
  store_bits(right, b);
  for (std::size_t i = 0; i < sizeof left; ++i) left[i] = left[i] > right[i] ? left[i] : right[i];
  return load_bits(left);
}
RAMET_INLINE bool has_byte(Bits a, std::uint8_t byte) {
  std::uint8_t bytes[sizeof a.v];
  store_bits(bytes, a);
  return std::memchr(bytes, byte, sizeof bytes) != nullptr;
}
// Vec::width rows of as many words, `stride` bytes apart: out[w] gets word w of every row.
RAMET_INLINE void transpose(const void* from, std::ptrdiff_t stride, Bits (&out)[8]) {
  for (int r = 0; r < 8; ++r) {
    const Bits row = load_bits(static_cast<const char*>(from) + r * stride);
    for (int w = 0; w < 8; ++w) out[w].v[r] = row.v[w];
  }
}

#endif

// `to` becomes x in its own precision: bfloat16 (std::uint16_t) by rounding to the nearest, ties to even.
RAMET_INLINE void put(float& to, float x) { to = x; }
RAMET_INLINE void put(std::uint16_t& to, float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
  to = static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);  // no number stays none
}

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
