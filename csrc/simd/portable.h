// Part of simd.h: vectors of 8 float32 and of as many words, by the compiler: for any machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ramet::RAMET_ISA {

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

}  // namespace ramet::RAMET_ISA
