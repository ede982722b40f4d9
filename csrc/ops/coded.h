// Reading coded matrices, a panel of 32 rows by a stretch of columns at a time.
//
// A stretch is first turned so that the lanes of a vector are the panel's rows, in words of 32 bits whatever they hold.
// Every coding of fewer bits than 32 is then brought into bfloat16, which has room for each of its numbers, two to a
// word. One more step and a multiplication by its scale, rounded once, make such a number a float32.
#pragma once

#include <type_traits>

#include "blocks.h"

namespace ramet::RAMET_ISA {

constexpr Index kStretch = 256;  // columns at a time, a multiple of every word's

template <Coding C>
constexpr int per_word = C == Coding::fp8 ? 4 : C == Coding::bf16 ? 2 : C == Coding::f32 ? 1 : 8;

// The numbers that four bits stand for, as e4m3 bytes, which have them all.
constexpr std::uint8_t kFp4[16] = {0x00, 0x30, 0x38, 0x3c, 0x40, 0x44, 0x48, 0x4c,
                                   0x80, 0xb0, 0xb8, 0xbc, 0xc0, 0xc4, 0xc8, 0xcc};
constexpr std::uint8_t kInt4[16] = {0xd0, 0xce, 0xcc, 0xca, 0xc8, 0xc4, 0xc0, 0xb8,
                                    0x00, 0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c, 0x4e};

// e4m3 in bfloat16: the sign, three zeros, and the other seven bits where the exponent ends and the mantissa begins.
// That is the number times 2**-120, subnormal ones included; a code for no number is read wrongly.
constexpr float kE4m3 = 0x1p120f;
constexpr std::uint32_t kMostScale = 0x43800000u;  // 256: a smaller scale times kE4m3 is still a float32

// Bytes 0 and 2 of each word, and bytes 1 and 3.
RAMET_INLINE void read_e4m3(Bits word, Bits& even, Bits& odd) {
  const Bits kept = all_bits(0x87f087f0u);
  even = shift_halves_right<4>(shift_left<8>(word)) & kept;
  odd = shift_halves_right<4>(word) & kept;
}

// A word's numbers in bfloat16, two to a word: number j is where `Turned::number` looks for it.
template <Coding C>
RAMET_INLINE void read_word(Bits word, Bits (&pairs)[(per_word<C> + 1) / 2]) {
  if constexpr (C == Coding::fp8) {
    read_e4m3(word, pairs[0], pairs[1]);
  } else if constexpr (per_word<C> == 8) {
    const std::uint8_t(&table)[16] = C == Coding::fp4 ? kFp4 : kInt4;
    const Bits low = all_bits(0x0f0f0f0fu);
    read_e4m3(look_up(table, word & low), pairs[0], pairs[1]);
    read_e4m3(look_up(table, shift_right<4>(word) & low), pairs[2], pairs[3]);
  } else {
    pairs[0] = word;
  }
}

// A stretch of a panel, turned, of codings with `per` numbers to a word: weights for `block` of blocks.h.
template <int per>
struct Turned {
  static constexpr int most_rows = Vec::width == 16 ? 6 : 4, most_panels = 1;
  static constexpr int registers = Vec::width == 16 ? 16 : 8;
  const std::uint32_t* pairs;  // [ceil(columns / per)][per / 2][kPanel]
  const float* factors;        // [blocks][kPanel]: the scales
  Index to_block_end;          // columns of the first block,
  Index block;                 // and of each one after it

  Turned next() const { return *this; }
  // Calls body(column, 0, weights) for every column in order. P is 1.
  template <int P, int V, int Slice, class Body>
  RAMET_INLINE void each(Index columns, Body body) const {
    constexpr int first = Slice * V * Vec::width;
    Index block_end = to_block_end;
    const float* factor = factors + first;
    for (Index i = 0; i < columns; block_end += block, factor += kPanel) {
      const Index end = block_end < columns ? block_end : columns;
      Vec scale[V];
      if constexpr (per > 2)
        for (int v = 0; v < V; ++v) scale[v] = load(factor + v * Vec::width);
      const std::uint32_t* word = pairs + i / per * (per / 2 * kPanel) + first;
      for (; i % per == 0 && i + per <= end; i += per, word += per / 2 * kPanel)
        numbers<V>(word, scale, i, 0, per, body);
      while (i < end) {  // a block or the row ends, or began, inside the word
        const Index at = i / per * per, to = end - at < per ? end - at : per;
        numbers<V>(pairs + at * (kPanel / 2) + first, scale, at, i - at, to, body);
        i = at + to;
      }
    }
  }

 private:
  // Numbers [from, to) of a word, the first of which is that of column `at`.
  template <int V, class Body>
  static RAMET_INLINE void numbers(const std::uint32_t* word, const Vec (&scale)[V], Index at, Index from, Index to,
                                   Body body) {
#pragma GCC unroll 16
    for (int j = 0; j < per; ++j) {
      if (j < from || j >= to) continue;
      Vec weights[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        weights[v] = number(word + v * Vec::width, j);
        if constexpr (per > 2) weights[v] = weights[v] * scale[v];
      }
      body(at + j, 0, weights);
    }
  }
  static RAMET_INLINE Vec number(const std::uint32_t* word, int j) {
    const int byte = 4 * j / per, pair = per == 8 ? j % 2 * 2 + byte % 2 : byte % 2;
    const Bits both = load_bits(word + pair * kPanel);
    return as_floats(byte >= 2 ? both & all_bits(0xffff0000u) : shift_left<16>(both));
  }
};

// Working memory for one stretch.
struct CodedScratch {
  alignas(64) std::uint32_t words[kStretch * kPanel];  // of float32; half of it otherwise
  alignas(64) float factors[(kStretch + 1) * kPanel];
};

// A scale in its file, and what it stands for.
template <Scale kind>
RAMET_INLINE std::uint32_t raw_scale(const std::uint8_t* scales, Index i) {
  constexpr Index size = kind == Scale::f32 ? 4 : kind == Scale::e8m0 ? 1 : 2;
  std::uint32_t raw = 0;
  std::memcpy(&raw, scales + size * i, static_cast<std::size_t>(size));
  return raw;
}
template <Scale kind>
RAMET_INLINE float scale_of(std::uint32_t raw) {
  std::uint32_t bits = raw;
  if (kind == Scale::bf16) bits = raw << 16;
  if (kind == Scale::e8m0) bits = raw == 0 ? 0x00400000u : raw == 255 ? 0x7fc00000u : raw << 23;
  if (kind == Scale::f16) bits = (raw & 0x7fffu) << 13 | ((raw & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  if (kind != Scale::f16) return value;
  value *= (raw & 0x7c00u) == 0x7c00u ? 1.0f : 0x1p112f;
  return raw & 0x8000u ? -value : value;
}
// Calls body with the kind as a constant.
template <class Body>
RAMET_INLINE auto of_kind(Scale kind, Body body) {
  switch (kind) {
    case Scale::f32: return body(std::integral_constant<Scale, Scale::f32>());
    case Scale::bf16: return body(std::integral_constant<Scale, Scale::bf16>());
    case Scale::f16: return body(std::integral_constant<Scale, Scale::f16>());
    default: return body(std::integral_constant<Scale, Scale::e8m0>());
  }
}

// Up to 32 rows of a matrix from row `row` on, counted from the beginning of the file's matrix.
template <Coding C>
class CodedRows {
 public:
  CodedRows(const Coded& w, Index row, Index rows)
      : w_(w), codes_(w.codes + row * w.row_bytes), rows_(rows < kPanel ? rows : kPanel) {
    if constexpr (kScaled) {
      const Index first = row / w.block_rows;
      Index block = first, left = w.block_rows - row % w.block_rows;
      for (Index r = 0; r < kPanel; ++r, --left) {
        if (left == 0) ++block, left = w.block_rows;
        scales_[r] = (r < rows_ ? block : first) * w.row_scales;
      }
    }
  }

  // Turns columns [begin, end), at most kStretch from a multiple of that on (or of 32, if they are few), and calls
  // body(weights) with what `block` takes. Where there are codes for no number among them, or scales too large for
  // `Turned`, the weights are decoded one by one.
  template <class Body>
  void read(Index begin, Index end, CodedScratch& s, Body body) const {
    const bool numbers = turn(begin, end, s.words);
    if constexpr (C == Coding::f32) {
      body(Panels<float, true>{reinterpret_cast<const float*>(s.words), 0});
    } else {
      Turned<per_word<C>> turned{s.words, s.factors, end - begin, end - begin};
      if constexpr (kScaled) {
        turned.block = w_.block_columns;
        turned.to_block_end = w_.block_columns - begin % w_.block_columns;
        if (!numbers || !scale(begin, end, s.factors)) {
          float* const decoded = reinterpret_cast<float*>(s.words);
          decode_one_by_one(begin, end, decoded);
          return body(Panels<float, true>{decoded, 0});
        }
      }
      body(turned);
    }
  }

  // [end - begin][kPanel]
  void decode(Index begin, Index end, CodedScratch& s, float* to) const {
    read(begin, end, s, [&](auto weights) {
      constexpr int V = kPanelVecs;
      weights.template each<1, V, 0>(end - begin, [&](Index i, int, const Vec(&each)[V]) {
        for (int v = 0; v < V; ++v) store(to + i * kPanel + v * Vec::width, each[v]);
      });
    });
  }

 private:
  static constexpr bool kScaled = C != Coding::bf16 && C != Coding::f32;

  static Index bytes(Index columns) { return (columns * 4 + per_word<C> - 1) / per_word<C>; }

  // False if there are codes for no number.
  bool turn(Index begin, Index end, std::uint32_t* to) const {
    constexpr Index kSize = 4 * Vec::width;  // of a row, at a time
    constexpr int kPairs = (per_word<C> + 1) / 2;
    const Index first = bytes(begin), size = bytes(end) - first;
    // What is read next: the same columns on, or the first of the next panel.
    const Index ahead = end < w_.columns ? size : kPanel * w_.row_bytes - first;
    Bits most = all_bits(0);
    for (Index r = 0; r < kPanel; r += Vec::width) {
      const std::uint8_t* const from = codes_ + r * w_.row_bytes + first;
      for (Index at = 0; at < size; at += kSize) {
        Bits words[Vec::width];
        if (r + Vec::width <= rows_ && at + kSize <= size) {
          transpose(from + at, w_.row_bytes, words);
          for (Index i = 0; i < Vec::width; ++i) __builtin_prefetch(from + at + i * w_.row_bytes + ahead);
        } else {
          alignas(64) std::uint8_t padded[Vec::width][kSize] = {};
          const Index here = size - at < kSize ? size - at : kSize;
          for (Index i = 0; i < Vec::width && r + i < rows_; ++i)
            std::memcpy(padded[i], from + i * w_.row_bytes + at, static_cast<std::size_t>(here));
          transpose(padded, kSize, words);
        }
#pragma GCC unroll 16
        for (int i = 0; i < Vec::width; ++i) {
          if constexpr (C == Coding::fp8) most = max_bytes(most, words[i] & all_bits(0x7f7f7f7fu));
          Bits pairs[kPairs];
          read_word<C>(words[i], pairs);
          for (int p = 0; p < kPairs; ++p) store_bits(to + ((at / 4 + i) * kPairs + p) * kPanel + r, pairs[p]);
        }
      }
    }
    return C != Coding::fp8 || !has_byte(most, 0x7f);
  }

  // The scales of columns [begin, end) times kE4m3. False if one is too large.
  bool scale(Index begin, Index end, float* factors) const {
    const Index first = begin / w_.block_columns, last = (end - 1) / w_.block_columns;
    return of_kind(w_.scale, [&](auto kind) {
      std::uint32_t most = 0;  // of the absolute values' bits, which are in the order of the values, with NaN on top
      for (Index b = first; b <= last; ++b, factors += kPanel) {
        std::uint32_t raw[kPanel];
        for (Index r = 0; r < kPanel; ++r) raw[r] = raw_scale<kind()>(w_.scales, scales_[r] + b);
        for (Index r = 0; r < kPanel; ++r) {
          const float value = scale_of<kind()>(raw[r]);
          std::uint32_t bits;
          std::memcpy(&bits, &value, sizeof bits);
          bits &= 0x7fffffffu;
          most = most > bits ? most : bits;
          factors[r] = value * kE4m3;
        }
      }
      return most < kMostScale;
    });
  }
  void decode_one_by_one(Index begin, Index end, float* to) const {
    std::memset(to, 0, static_cast<std::size_t>((end - begin) * kPanel) * sizeof(float));
    for (Index r = 0; r < rows_; ++r)
      for (Index c = begin; c < end; ++c)
        to[(c - begin) * kPanel + r] = number(r, c) * of_kind(w_.scale, [&](auto kind) {
          return scale_of<kind()>(raw_scale<kind()>(w_.scales, scales_[r] + c / w_.block_columns));
        });
  }
  float number(Index r, Index c) const {
    const std::uint8_t* const row = codes_ + r * w_.row_bytes;
    std::uint8_t byte = row[C == Coding::fp8 ? c : c / 2];
    if constexpr (C != Coding::fp8) byte = (C == Coding::fp4 ? kFp4 : kInt4)[c % 2 == 0 ? byte & 15 : byte >> 4];
    if ((byte & 0x7f) == 0x7f) return __builtin_nanf("");
    const std::uint32_t bits =
        static_cast<std::uint32_t>(byte & 0x80) << 24 | static_cast<std::uint32_t>(byte & 0x7f) << 20;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value * kE4m3;
  }

  const Coded& w_;
  const std::uint8_t* codes_;
  Index rows_, scales_[kPanel];
};

}  // namespace ramet::RAMET_ISA
