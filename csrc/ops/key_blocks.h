// Queries that pass over blocks of keys with a running softmax. A row's arithmetic is the same whichever rows share its
// block: scores are summed over the head's columns in order, values over the block's keys in order.
//
// A block is of `Block` keys: keys lie in it as [head_dim][Block], values as [Block][head_dim], float or, as
// std::uint16_t, bfloat16.
#pragma once

#include <type_traits>

#include "../ops.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {
namespace {  // each op's own copy: inlined as if it were written there

constexpr int kVecs = 2;                             // vectors per register block
constexpr int kFewRows = 4;                          // up to so many rows a block's way from memory is the limit
constexpr int kWideVecs = Vec::width == 16 ? 4 : 2;  // vectors per register block for them
constexpr int kRows = Vec::width == 16 ? 12 : 6;     // rows of the largest register block
constexpr Index kTile = 48;                          // about how many query rows read a block together

// scores[r][..] = q[r] . keys for V vectors of a block's keys.
template <Index Block, int R, int V, class Row>
void score(const float* q, Index head_dim, const Row* keys, float* scores) {
  Vec sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[r][v] = zero();
  for (Index d = 0; d < head_dim; ++d) {
    Vec key[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) key[v] = load(keys + d * Block + v * Vec::width);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec each = all(q[r * head_dim + d]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][v] = fma(each, key[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(scores + r * Block + v * Vec::width, sums[r][v]);
}

// result[r] = result[r] * fade[r] + weights[r][0..count) . values, for V vectors of columns, the last `lanes` wide.
template <Index Block, int R, int V, class Row>
void gather(const float* weights, const float* fade, const Row* values, Index head_dim, Index count, float* result,
            int lanes) {
  Vec sums[R][V];
  const auto width = [&](int v) { return v == V - 1 ? lanes : Vec::width; };
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
      sums[r][v] = load_lanes(result + r * head_dim + v * Vec::width, width(v)) * all(fade[r]);
  for (Index i = 0; i < count; ++i) {
    Vec value[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) value[v] = load_lanes(values + i * head_dim + v * Vec::width, width(v));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec each = all(weights[r * Block + i]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][v] = fma(each, value[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store_lanes(result + r * head_dim + v * Vec::width, sums[r][v], width(v));
}

// Calls body(first row, rows as a constant) over blocks of rows.
template <int V, class Body>
RAMET_INLINE void over_row_blocks(Index rows, Body body) {
  Index r = 0;
  if constexpr (V == kVecs)
    for (; rows - r >= kRows; r += kRows) body(r, std::integral_constant<int, kRows>());
  if constexpr (V == kVecs && kRows > 8)
    for (; rows - r >= 8; r += 8) body(r, std::integral_constant<int, 8>());
  for (; rows - r >= 4; r += 4) body(r, std::integral_constant<int, 4>());
  for (; rows - r >= 2; r += 2) body(r, std::integral_constant<int, 2>());
  if (r < rows) body(r, std::integral_constant<int, 1>());
}

// Queries that see the same first `count` keys of a block.
struct Queries {
  const float* q;   // [rows][head_dim]
  float* scores;    // [rows][Block]
  float* result;    // [rows][head_dim]
  float* top;       // largest score so far
  float* total;     // sum of the weights so far
  float* fade;
};

// The running softmax of one row over one block's scores, which become weights.
template <Index Block>
void weigh(float* scores, Index count, float scale, float& running_top, float& running_total, float& fade) {
  const Vec lowest = all(-__builtin_inff());
  constexpr int vecs = Block / Vec::width;
  Vec s[vecs];
  Vec top = all(running_top);
  for (int v = 0; v < vecs; ++v) {
    const Index left = count - v * Vec::width;
    s[v] = load(scores + v * Vec::width) * all(scale);
    if (left < Vec::width) s[v] = keep_first(s[v], left > 0 ? static_cast<int>(left) : 0, lowest);
    top = max(top, s[v]);
  }
  const float highest = largest(top);
  Vec total = zero();
  for (int v = 0; v < vecs; ++v) {
    s[v] = exp(s[v] - all(highest));
    total = total + s[v];
    store(scores + v * Vec::width, s[v]);
  }
  float fades[Vec::width];
  store(fades, exp(all(running_top) - all(highest)));
  fade = fades[0];
  running_top = highest;
  running_total = running_total * fade + sum(total);
}

// Rows that see the first `count` keys of a block. A strip of the block's keys, then of its values, `V` vectors wide,
// stays in the L1 cache while all rows pass.
template <Index Block, int V, class Row>
void block_in_strips(const Queries& rows, Index row_count, Index size, const Row* keys, const Row* values, Index count,
                     float scale) {
  for (Index key = 0; key < count; key += V * Vec::width)
    over_row_blocks<V>(row_count, [&](Index r, auto rows_here) {
      score<Block, rows_here, V>(rows.q + r * size, size, keys + key, rows.scores + r * Block + key);
    });
  for (Index r = 0; r < row_count; ++r)
    weigh<Block>(rows.scores + r * Block, count, scale, rows.top[r], rows.total[r], rows.fade[r]);
  Index column = 0;
  for (; column + V * Vec::width <= size; column += V * Vec::width)
    over_row_blocks<V>(row_count, [&](Index r, auto rows_here) {
      gather<Block, rows_here, V>(rows.scores + r * Block, rows.fade + r, values + column, size, count,
                                  rows.result + r * size + column, Vec::width);
    });
  for (; column < size; column += Vec::width) {
    const int lanes = size - column < Vec::width ? static_cast<int>(size - column) : Vec::width;
    over_row_blocks<V>(row_count, [&](Index r, auto rows_here) {
      gather<Block, rows_here, 1>(rows.scores + r * Block, rows.fade + r, values + column, size, count,
                                  rows.result + r * size + column, lanes);
    });
  }
}

// The same, whichever number of rows there are.
template <Index Block, class Row>
void pass_block(const Queries& rows, Index row_count, Index size, const Row* keys, const Row* values, Index count,
                float scale) {
  if (row_count > kFewRows) return block_in_strips<Block, kVecs>(rows, row_count, size, keys, values, count, scale);
  block_in_strips<Block, kWideVecs>(rows, row_count, size, keys, values, count, scale);
}

}  // namespace
}  // namespace ramet::RAMET_ISA
