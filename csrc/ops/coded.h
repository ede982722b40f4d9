// Reading coded matrices, a panel of 32 rows by a stretch of columns at a time.
//
// A stretch is first turned so that the lanes of a vector are the panel's rows, in words of 32 bits, whatever they hold.
// Every coding of fewer bits than 32 is then brought into bfloat16, which has room for each of its numbers, two to a
// word; one more step and a multiplication by its scale, rounded once, make a number a float32.
#pragma once

#include "../ops.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

constexpr Index kStretchWords = 64, kStretchColumns = 256;  // at most, in each row

template <Coding C>
constexpr int per_word = C == Coding::fp8 ? 4 : C == Coding::bf16 ? 2 : C == Coding::f32 ? 1 : 8;
template <Coding C>
constexpr Index stretch_columns =
    kStretchWords * per_word<C> < kStretchColumns ? kStretchWords * per_word<C> : kStretchColumns;
template <Coding C>
constexpr bool is_scaled = C != Coding::bf16 && C != Coding::f32;

// The numbers that four bits stand for, as e4m3 bytes, which have them all.
constexpr std::uint8_t kFp4[16] = {0x00, 0x30, 0x38, 0x3c, 0x40, 0x44, 0x48, 0x4c,
                                   0x80, 0xb0, 0xb8, 0xbc, 0xc0, 0xc4, 0xc8, 0xcc};
constexpr std::uint8_t kInt4[16] = {0xd0, 0xce, 0xcc, 0xca, 0xc8, 0xc4, 0xc0, 0xb8,
                                    0x00, 0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c, 0x4e};

// e4m3 in bfloat16: the sign, three zeros, and the other seven bits where the exponent ends and the mantissa begins.
// That is the number times 2**-120, subnormal ones included; a code for no number is read wrongly.
constexpr float kE4m3 = 0x1p120f;
constexpr float kMostScale = 256.0f;  // a scale less than this is still a float32 when it is multiplied by kE4m3

// The numbers of a word as bfloat16, two to a vector of words.
template <Coding C>
struct Numbers {
  static constexpr int vectors = per_word<C> > 2 ? per_word<C> / 2 : 1;
  Bits pairs[vectors];

  RAMET_INLINE void read(Bits word) {
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
  RAMET_INLINE Vec operator[](int j) const {
    if constexpr (C == Coding::f32) return as_floats(pairs[0]);
    const int byte = per_word<C> == 8 ? j / 2 : per_word<C> == 4 ? j : 2 * j;
    const int pair = per_word<C> == 8 ? j % 2 * 2 + byte % 2 : byte % 2;
    return as_floats(byte >= 2 ? pairs[pair] & all_bits(0xffff0000u) : shift_left<16>(pairs[pair]));
  }

 private:
  // Bytes 0 and 2 of each word, and bytes 1 and 3.
  static RAMET_INLINE void read_e4m3(Bits word, Bits& even, Bits& odd) {
    const Bits kept = all_bits(0x87f087f0u);
    even = shift_halves_right<4>(shift_left<8>(word)) & kept;
    odd = shift_halves_right<4>(word) & kept;
  }
};

// A stretch of a panel, turned: weights for `block` of blocks.h.
template <Coding C>
struct CodedPanel {
  static constexpr int most_rows = Vec::width == 16 ? 6 : 4, most_panels = 1;
  static constexpr int registers = Vec::width == 16 ? 16 : per_word<C> == 8 ? 4 : 8;
  const std::uint32_t* words;  // [words][kPanel]
  const float* factors;        // [blocks][kPanel]: what Numbers are multiplied by
  Index to_block_end;          // columns of the first block,
  Index block;                 // and of each one after it

  CodedPanel next() const { return *this; }
  // Calls body(column, 0, weights) for every column in order. P is 1.
  template <int P, int V, int Slice, class Body>
  RAMET_INLINE void each(Index columns, Body body) const {
    constexpr int per = per_word<C>, first = Slice * V * Vec::width;
    Index block_end = to_block_end;
    const float* factor = factors + first;
    for (Index i = 0; i < columns; block_end += block, factor += kPanel) {
      const Index end = block_end < columns ? block_end : columns;
      Vec scale[V];
      if constexpr (is_scaled<C>)
        for (int v = 0; v < V; ++v) scale[v] = load(factor + v * Vec::width);
      for (; i % per == 0 && i + per <= end; i += per)
        word<V>(words + i / per * kPanel + first, scale, i, 0, per, body);
      while (i < end) {  // a block or the row ends, or began, inside the word
        const Index at = i / per * per, to = end - at < per ? end - at : per;
        word<V>(words + i / per * kPanel + first, scale, at, i - at, to, body);
        i = at + to;
      }
    }
  }

 private:
  // Numbers [from, to) of a word, the first of which is that of column `at`.
  template <int V, class Body>
  static RAMET_INLINE void word(const std::uint32_t* from_words, const Vec (&scale)[V], Index at, Index from, Index to,
                                Body body) {
    Numbers<C> numbers[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) numbers[v].read(load_bits(from_words + v * Vec::width));
#pragma GCC unroll 16
    for (int j = 0; j < per_word<C>; ++j) {
      if (j < from || j >= to) continue;
      Vec weights[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        weights[v] = numbers[v][j];
        if constexpr (is_scaled<C>) weights[v] = weights[v] * scale[v];
      }
      body(at + j, 0, weights);
    }
  }
};

// Working memory for one stretch.
struct CodedScratch {
  alignas(64) std::uint32_t words[kStretchWords * kPanel];
  alignas(64) float factors[(kStretchColumns + 1) * kPanel];
};

inline float scale_at(const std::uint8_t* scales, Scale kind, Index i) {
  std::uint32_t bits = 0;
  float value;
  switch (kind) {
    case Scale::f32:
      std::memcpy(&bits, scales + 4 * i, 4);
      break;
    case Scale::e8m0:
      bits = scales[i] == 0 ? 0x00400000u : scales[i] == 255 ? 0x7fc00000u : static_cast<std::uint32_t>(scales[i]) << 23;
      break;
    case Scale::bf16:
      std::memcpy(reinterpret_cast<char*>(&bits) + 2, scales + 2 * i, 2);
      break;
    case Scale::f16: {
      std::uint16_t half;
      std::memcpy(&half, scales + 2 * i, 2);
      bits = static_cast<std::uint32_t>(half & 0x7fffu) << 13;
      const bool infinite = (half & 0x7c00u) == 0x7c00u;
      if (infinite) bits |= 0x7f800000u;
      std::memcpy(&value, &bits, sizeof value);
      if (!infinite) value *= 0x1p112f;
      return half & 0x8000u ? -value : value;
    }
    case Scale::none:
      return 1.0f;
  }
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Up to 32 rows of a matrix from row `row` on, counted from the beginning of the file's matrix.
template <Coding C>
class CodedRows {
 public:
  CodedRows(const Coded& w, Index row, Index rows)
      : w_(w), codes_(w.codes + row * w.row_bytes), rows_(rows < kPanel ? rows : kPanel) {
    if constexpr (is_scaled<C>) {
      Index block = row / w.block_rows, left = w.block_rows - row % w.block_rows;
      for (Index r = 0; r < kPanel; ++r, --left) {
        if (left == 0) ++block, left = w.block_rows;
        scales_[r] = (r < rows_ ? block : row / w.block_rows) * w.row_scales;
      }
    }
  }

  // Columns [begin, end), at most stretch_columns from a multiple of that on. False if among them are codes for no
  // number or scales too large for `CodedPanel`: then they are to be decoded one by one.
  bool turn(Index begin, Index end, CodedScratch& s, CodedPanel<C>& panel) const {
    panel.words = s.words;
    panel.factors = s.factors;
    panel.block = end - begin;
    panel.to_block_end = end - begin;
    return turn_codes(begin, end, s.words) && scale(begin, end, s.factors, panel);
  }

  // [end - begin][kPanel]
  void decode(Index begin, Index end, CodedScratch& s, float* to) const {
    CodedPanel<C> panel;
    if (!turn(begin, end, s, panel)) return decode_one_by_one(begin, end, to);
    constexpr int V = kPanel / Vec::width;
    panel.template each<1, V, 0>(end - begin, [&](Index i, int, const Vec(&weights)[V]) {
      for (int v = 0; v < V; ++v) store(to + i * kPanel + v * Vec::width, weights[v]);
    });
  }

  void decode_one_by_one(Index begin, Index end, float* to) const {
    std::memset(to, 0, static_cast<std::size_t>((end - begin) * kPanel) * sizeof(float));
    for (Index r = 0; r < rows_; ++r)
      for (Index c = begin; c < end; ++c)
        to[(c - begin) * kPanel + r] =
            number(r, c) * scale_at(w_.scales, w_.scale, scales_[r] + c / w_.block_columns);
  }

 private:
  static Index bytes(Index columns) { return (columns * 4 + per_word<C> - 1) / per_word<C>; }

  bool turn_codes(Index begin, Index end, std::uint32_t* words) const {
    constexpr Index kSize = 4 * Vec::width;  // of a row, at a time
    const Index first = bytes(begin), size = bytes(end) - first;
    // What is read next: the same columns on, or the first of the next panel.
    const Index ahead = end < w_.columns ? size : kPanel * w_.row_bytes - first;
    Bits most = all_bits(0);
    for (Index r = 0; r < kPanel; r += Vec::width) {
      const std::uint8_t* const from = codes_ + r * w_.row_bytes + first;
      for (Index at = 0; at < size; at += kSize) {
        Bits turned[Vec::width];
        if (r + Vec::width <= rows_ && at + kSize <= size) {
          transpose(from + at, w_.row_bytes, turned);
          for (Index i = 0; i < Vec::width; ++i) __builtin_prefetch(from + at + i * w_.row_bytes + ahead);
        } else {
          alignas(64) std::uint8_t padded[Vec::width][kSize] = {};
          const Index here = size - at < kSize ? size - at : kSize;
          for (Index i = 0; i < Vec::width && r + i < rows_; ++i)
            std::memcpy(padded[i], from + i * w_.row_bytes + at, static_cast<std::size_t>(here));
          transpose(padded, kSize, turned);
        }
        for (int i = 0; i < Vec::width; ++i) {
          store_bits(words + (at / 4 + i) * kPanel + r, turned[i]);
          if constexpr (C == Coding::fp8) most = max_bytes(most, turned[i] & all_bits(0x7f7f7f7fu));
        }
      }
    }
    return C != Coding::fp8 || !has_byte(most, 0x7f);
  }

  bool scale(Index begin, Index end, float* factors, CodedPanel<C>& panel) const {
    if constexpr (is_scaled<C>) {
      const Index first = begin / w_.block_columns, last = (end - 1) / w_.block_columns;
      panel.to_block_end = (first + 1) * w_.block_columns - begin;
      panel.block = w_.block_columns;
      for (Index b = first; b <= last; ++b, factors += kPanel) {
        switch (w_.scale) {  // a loop of its own for each
          case Scale::f32: gather<Scale::f32>(b, factors); break;
          case Scale::bf16: gather<Scale::bf16>(b, factors); break;
          case Scale::f16: gather<Scale::f16>(b, factors); break;
          default: gather<Scale::e8m0>(b, factors); break;
        }
        bool fits = true;
        for (Index r = 0; r < kPanel; ++r) {
          fits &= factors[r] < kMostScale && factors[r] > -kMostScale;
          factors[r] *= kE4m3;
        }
        if (!fits) return false;
      }
    }
    return true;
  }
  template <Scale kind>
  void gather(Index block, float* to) const {
    for (Index r = 0; r < kPanel; ++r) to[r] = scale_at(w_.scales, kind, scales_[r] + block);
  }

  float number(Index r, Index c) const {
    const std::uint8_t* const row = codes_ + r * w_.row_bytes;
    std::uint8_t byte = row[C == Coding::fp8 ? c : c / 2];
    if constexpr (C != Coding::fp8) byte = (C == Coding::fp4 ? kFp4 : kInt4)[c % 2 == 0 ? byte & 15 : byte >> 4];
    if ((byte & 0x7f) == 0x7f) return __builtin_nanf("");
    const std::uint32_t bits = static_cast<std::uint32_t>(byte & 0x80) << 24 | static_cast<std::uint32_t>(byte & 0x7f) << 20;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value * kE4m3;
  }

  const Coded& w_;
  const std::uint8_t* codes_;
  Index rows_, scales_[kPanel];
};

}  // namespace ramet::RAMET_ISA
