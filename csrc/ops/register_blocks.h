// What attention and its indexers have in common: products of a few rows with vectors of others side by side, and sums
// of values, both in registers. A product is summed over the columns in order, a sum over its values in order, whichever
// rows share a block.
#pragma once

#include <type_traits>

#include "../ops.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {
namespace {  // each op's own copy: inlined as if it were written there

constexpr int kMost = Vec::width == 16 ? 12 : 6;  // rows of the largest register block of two vectors

// Calls body(first, how many as a constant) over [0, count), at most `Most` at a time.
template <int Most = kMost, class Body>
RAMET_INLINE void over_register_blocks(Index count, Body body) {
  Index at = 0;
  for (; count - at >= Most; at += Most) body(at, std::integral_constant<int, Most>());
  if constexpr (Most > 8)
    for (; count - at >= 8; at += 8) body(at, std::integral_constant<int, 8>());
  if constexpr (Most > 4)
    for (; count - at >= 4; at += 4) body(at, std::integral_constant<int, 4>());
  for (; count - at >= 2; at += 2) body(at, std::integral_constant<int, 2>());
  if (at < count) body(at, std::integral_constant<int, 1>());
}

// sums[r][..] = row(r) . V vectors of what lies side by side in `across`, [size][Stride].
template <Index Stride, int R, int V, class RowAt, class Element>
RAMET_INLINE void products(RowAt row, Index size, const Element* across, Vec (&sums)[R][V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[r][v] = zero();
  for (Index c = 0; c < size; ++c) {
    Vec each[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) each[v] = load(across + c * Stride + v * Vec::width);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec one = all(widen(row(r)[c]));
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][v] = fma(one, each[v], sums[r][v]);
    }
  }
}

// The same, to scores[r][..], [R][Stride].
template <Index Stride, int R, int V, class RowAt, class Element>
void score_rows(RowAt row, Index size, const Element* across, float* scores) {
  Vec sums[R][V];
  products<Stride>(row, size, across, sums);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(scores + r * Stride + v * Vec::width, sums[r][v]);
}

// result[r] = result[r] * fade[r] + sum over i in [0, count) of weights[r * Row + i * Step] * value(i), for V vectors of
// columns, the last `lanes` wide.
template <Index Row, Index Step, int R, int V, class ValueAt>
void add_values(const float* weights, const float* fade, ValueAt value, Index count, float* result, Index result_stride,
                int lanes) {
  Vec sums[R][V];
  const auto width = [&](int v) { return v == V - 1 ? lanes : Vec::width; };
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
      sums[r][v] = load_lanes(result + r * result_stride + v * Vec::width, width(v)) * all(fade[r]);
  for (Index i = 0; i < count; ++i) {
    Vec each[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) each[v] = load_lanes(value(i) + v * Vec::width, width(v));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec weight = all(weights[r * Row + i * Step]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][v] = fma(weight, each[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store_lanes(result + r * result_stride + v * Vec::width, sums[r][v], width(v));
}

}  // namespace
}  // namespace ramet::RAMET_ISA
