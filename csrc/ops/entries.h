// What the ops on compressed entries share: where an entry lies, and products of many queries with rows of keys.
//
// An entry stands for `ratio` tokens and lies in the page in which its last token lies. The ratio divides the page's
// tokens, or is a multiple of them.
#pragma once

#include "../ops.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

constexpr int kQueryVecs = 2;                              // vectors of queries side by side
constexpr int kQueries = kQueryVecs * Vec::width;          // queries per block
constexpr int kKeyBlock = 64;                              // keys per block
constexpr int kKeyRows = Vec::width == 16 ? 12 : 6;        // keys of the largest register block

// The address of entry e, `size` elements, in a session's pages.
template <class Row>
RAMET_INLINE Row* entry_at(void* const* pages, Index entry, Index ratio, Index size, Index offset) {
  const Index last = (entry + 1) * ratio - 1, slots = ratio < kPageTokens ? kPageTokens / ratio : 1;
  return static_cast<Row*>(pages[last / kPageTokens]) + offset + entry % slots * size;
}

RAMET_INLINE float widen(float x) { return x; }
RAMET_INLINE float widen(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Queries h0, h0 + 1, ... of [heads][size] side by side: [size][kQueries], zeros where there is none.
RAMET_INLINE void turn_queries(const float* q, Index heads, Index size, float* turned) {
  for (Index d = 0; d < size; ++d)
    for (Index h = 0; h < kQueries; ++h) turned[d * kQueries + h] = h < heads ? q[h * size + d] : 0.0f;
}

template <int R, class Row>
void score_rows(const Row* const* keys, Index size, const float* turned, float* scores) {
  Vec sums[R][kQueryVecs];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kQueryVecs; ++v) sums[r][v] = zero();
  for (Index d = 0; d < size; ++d) {
    Vec query[kQueryVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kQueryVecs; ++v) query[v] = load(turned + d * kQueries + v * Vec::width);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec each = all(widen(keys[r][d]));
#pragma GCC unroll 16
      for (int v = 0; v < kQueryVecs; ++v) sums[r][v] = fma(each, query[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kQueryVecs; ++v) store(scores + r * kQueries + v * Vec::width, sums[r][v]);
}

// scores[i][h] = keys[i] . query h, summed over the columns in order, for `count` keys.
template <class Row>
RAMET_INLINE void score_keys(const Row* const* keys, Index count, Index size, const float* turned, float* scores) {
  Index i = 0;
  for (; count - i >= kKeyRows; i += kKeyRows) score_rows<kKeyRows>(keys + i, size, turned, scores + i * kQueries);
  for (; count - i >= 4; i += 4) score_rows<4>(keys + i, size, turned, scores + i * kQueries);
  for (; i < count; ++i) score_rows<1>(keys + i, size, turned, scores + i * kQueries);
}

}  // namespace ramet::RAMET_ISA
