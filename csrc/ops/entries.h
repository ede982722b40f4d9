// What the ops on compressed entries share: where an entry lies, and products of many queries with rows of keys.
//
// An entry stands for `ratio` tokens and lies in the page in which its last token lies. The ratio divides the page's
// tokens, or is a multiple of them.
#pragma once

#include "register_blocks.h"

namespace ramet::RAMET_ISA {

constexpr int kQueryVecs = 2;                              // vectors of queries side by side
constexpr int kQueries = kQueryVecs * Vec::width;          // queries per block
constexpr int kKeyBlock = 64;                              // keys per block

// The address of entry e, `size` elements, in a session's pages.
template <class Row>
RAMET_INLINE Row* entry_at(void* const* pages, Index entry, Index ratio, Index size, Index offset) {
  const Index last = (entry + 1) * ratio - 1, slots = ratio < kPageTokens ? kPageTokens / ratio : 1;
  return static_cast<Row*>(pages[last / kPageTokens]) + offset + entry % slots * size;
}

// Queries h0, h0 + 1, ... of [heads][size] side by side: [size][kQueries], zeros where there is none.
RAMET_INLINE void turn_queries(const float* q, Index heads, Index size, float* turned) {
  for (Index d = 0; d < size; ++d)
    for (Index h = 0; h < kQueries; ++h) turned[d * kQueries + h] = h < heads ? q[h * size + d] : 0.0f;
}

// scores[i][h] = keys[i] . query h, summed over the columns in order, for `count` keys.
template <class Row>
RAMET_INLINE void score_keys(const Row* const* keys, Index count, Index size, const float* turned, float* scores) {
  over_register_blocks(count, [&](Index i, auto block) {
    const Row* const* const rows = keys + i;
    score_rows<kQueries, block, kQueryVecs>([=](int r) { return rows[r]; }, size, turned, scores + i * kQueries);
  });
}

}  // namespace ramet::RAMET_ISA
