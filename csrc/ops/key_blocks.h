// Queries that pass over blocks of keys with a running softmax. A row's arithmetic is the same whichever rows share its
// block: scores are summed over the head's columns in order, values over the block's keys in order.
//
// A block is of `Block` keys: keys lie in it as [head_dim][Block], values as [Block][head_dim], float or, as
// std::uint16_t, bfloat16.
#pragma once

#include "register_blocks.h"

namespace ramet::RAMET_ISA {
namespace {  // each op's own copy: inlined as if it were written there

constexpr int kVecs = 2;                             // vectors per register block
constexpr int kFewRows = 4;                          // up to so many rows a block's way from memory is the limit
constexpr int kWideVecs = Vec::width == 16 ? 4 : 2;  // vectors per register block for them
constexpr Index kTile = 48;                          // about how many query rows read a block together

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
  constexpr int most = V == kVecs ? kMost : kFewRows;
  for (Index key = 0; key < count; key += V * Vec::width)
    over_register_blocks<most>(row_count, [&](Index r, auto rows_here) {
      const float* const q = rows.q + r * size;
      score_rows<Block, rows_here, V>([=](int i) { return q + i * size; }, size, keys + key,
                                      rows.scores + r * Block + key);
    });
  for (Index r = 0; r < row_count; ++r)
    weigh<Block>(rows.scores + r * Block, count, scale, rows.top[r], rows.total[r], rows.fade[r]);
  const auto values_at = [&](Index column, auto vecs, int lanes) {
    over_register_blocks<most>(row_count, [&](Index r, auto rows_here) {
      add_values<Block, 1, rows_here, vecs>(rows.scores + r * Block, rows.fade + r,
                                            [=](Index i) { return values + i * size + column; }, count,
                                            rows.result + r * size + column, size, lanes);
    });
  };
  Index column = 0;
  for (; column + V * Vec::width <= size; column += V * Vec::width)
    values_at(column, std::integral_constant<int, V>(), Vec::width);
  for (; column < size; column += Vec::width)
    values_at(column, std::integral_constant<int, 1>(),
              size - column < Vec::width ? static_cast<int>(size - column) : Vec::width);
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
