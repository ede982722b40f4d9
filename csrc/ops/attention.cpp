// Causal attention: pages in order of position, a running softmax per row. A row's arithmetic is the same whichever
// rows share its block: scores are summed over the head's columns in order, values over the page's keys in order.
// `Row` is what a page holds: float, or std::uint16_t for bfloat16, rounded once, when the row is written.
#include <type_traits>

#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr int kKeyVecs = kPageTokens / Vec::width;
constexpr int kVecs = 2;                                // vectors per register block
constexpr int kFewRows = 4;                             // up to so many rows a page's way from memory is the limit
constexpr int kWideVecs = Vec::width == 16 ? 4 : 2;     // vectors per register block for them
constexpr int kRows = Vec::width == 16 ? 12 : 6;        // rows of the largest register block
constexpr Index kTile = 48;                             // about how many query rows read a page together

// scores[r][..] = q[r] . keys for V vectors of a page's keys, [head_dim][64].
template <int R, int V, class Row>
void score(const float* q, Index head_dim, const Row* keys, float* scores) {
  Vec sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[r][v] = zero();
  for (Index d = 0; d < head_dim; ++d) {
    Vec key[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) key[v] = load(keys + d * kPageTokens + v * Vec::width);
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
    for (int v = 0; v < V; ++v) store(scores + r * kPageTokens + v * Vec::width, sums[r][v]);
}

// result[r] = result[r] * fade[r] + weights[r][0..count) . values, for V vectors of columns, the last `lanes` wide.
template <int R, int V, class Row>
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
      const Vec each = all(weights[r * kPageTokens + i]);
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

// Queries that see the same first `count` keys of a page.
struct Queries {
  const float* q;   // [rows][head_dim]
  float* scores;    // [rows][64]
  float* result;    // [rows][head_dim]
  float* top;       // largest score so far
  float* total;     // sum of the weights so far
  float* fade;
};

// The running softmax of one row over one page's scores, which become weights.
void weigh(float* scores, Index count, float scale, float& running_top, float& running_total, float& fade) {
  const Vec lowest = all(-__builtin_inff());
  Vec s[kKeyVecs];
  Vec top = all(running_top);
  for (int v = 0; v < kKeyVecs; ++v) {
    const Index left = count - v * Vec::width;
    s[v] = load(scores + v * Vec::width) * all(scale);
    if (left < Vec::width) s[v] = keep_first(s[v], left > 0 ? static_cast<int>(left) : 0, lowest);
    top = max(top, s[v]);
  }
  const float highest = largest(top);
  Vec total = zero();
  for (int v = 0; v < kKeyVecs; ++v) {
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

// Rows that see the first `count` keys of a page. A strip of the page's keys, then of its values, `V` vectors wide,
// stays in the L1 cache while all rows pass.
template <int V, class Row>
void page_in_strips(const Queries& rows, Index row_count, Index size, const Row* keys, const Row* values, Index count,
                    float scale) {
  for (Index key = 0; key < count; key += V * Vec::width)
    over_row_blocks<V>(row_count, [&](Index r, auto block) {
      score<block, V>(rows.q + r * size, size, keys + key, rows.scores + r * kPageTokens + key);
    });
  for (Index r = 0; r < row_count; ++r)
    weigh(rows.scores + r * kPageTokens, count, scale, rows.top[r], rows.total[r], rows.fade[r]);
  Index column = 0;
  for (; column + V * Vec::width <= size; column += V * Vec::width)
    over_row_blocks<V>(row_count, [&](Index r, auto block) {
      gather<block, V>(rows.scores + r * kPageTokens, rows.fade + r, values + column, size, count,
                       rows.result + r * size + column, Vec::width);
    });
  for (; column < size; column += Vec::width) {
    const int lanes = size - column < Vec::width ? static_cast<int>(size - column) : Vec::width;
    over_row_blocks<V>(row_count, [&](Index r, auto block) {
      gather<block, 1>(rows.scores + r * kPageTokens, rows.fade + r, values + column, size, count,
                       rows.result + r * size + column, lanes);
    });
  }
}

template <class Row>
void page(const Queries& rows, Index row_count, Index size, const Row* keys, const Row* values, Index count,
          float scale) {
  if (row_count > kFewRows) return page_in_strips<kVecs>(rows, row_count, size, keys, values, count, scale);
  page_in_strips<kWideVecs>(rows, row_count, size, keys, values, count, scale);
}

// `tokens` rows of session s from its row `begin` of this step on, and all the query heads of one key head.
template <class Row>
void tile(const Attention& a, Index s, Index kv_head, Index begin, Index tokens) {
  const Index group = a.heads / a.kv_heads, count = tokens * group, size = a.head_dim;
  const Index row = a.spans.offsets[s] + begin, position = a.spans.positions[s] + begin;
  void* const* const pages = a.spans.pages + a.spans.first_page[s];

  Queries rows;
  float* const q = scratch(1, static_cast<std::size_t>(count * (2 * size + kPageTokens + 3)));
  rows.q = q;
  rows.result = q + count * size;
  rows.scores = rows.result + count * size;
  rows.top = rows.scores + count * kPageTokens;
  rows.total = rows.top + count;
  rows.fade = rows.total + count;
  for (Index t = 0; t < tokens; ++t)
    std::memcpy(q + t * group * size, a.q + (row + t) * a.q_stride + kv_head * group * size,
                static_cast<std::size_t>(group * size) * sizeof(float));
  std::memset(rows.result, 0, static_cast<std::size_t>(count * size) * sizeof(float));
  for (Index i = 0; i < count; ++i) {
    rows.top[i] = -__builtin_inff();
    rows.total[i] = 0;
  }

  const Index last = (position + tokens - 1) / kPageTokens;
  for (Index p = 0; p <= last; ++p) {
    const Row* const keys = static_cast<const Row*>(pages[p]) + a.k_offset + kv_head * size * kPageTokens;
    const Row* const values = static_cast<const Row*>(pages[p]) + a.v_offset + kv_head * size * kPageTokens;
    const Index before = p * kPageTokens;
    if (tokens == 1)  // nothing hides the way of the values from memory but the work on the keys
      for (Index i = 0; i < size * kPageTokens; i += 64 / Index{sizeof(Row)}) __builtin_prefetch(values + i);
    // Tokens that see the whole page go together; each of the others sees its own number of keys, and not one more:
    // what lies beyond may belong to another branch, or be no number at all.
    Index t = before + kPageTokens - 1 - position;
    t = t < 0 ? 0 : t > tokens ? tokens : t;
    const auto from = [&](Index token) {
      const Index i = token * group;
      return Queries{rows.q + i * size, rows.scores + i * kPageTokens, rows.result + i * size,
                     rows.top + i,      rows.total + i,                rows.fade + i};
    };
    if (t < tokens) page(from(t), (tokens - t) * group, size, keys, values, kPageTokens, a.scale);
    for (Index each = 0; each < t; ++each) {
      const Index seen = position + each - before + 1;
      if (seen > 0) page(from(each), group, size, keys, values, seen, a.scale);
    }
  }
  for (Index t = 0; t < tokens; ++t)
    for (Index g = 0; g < group; ++g) {
      const Index i = t * group + g;
      const Vec total = all(rows.total[i]);
      float* const out = a.out + ((row + t) * a.heads + kv_head * group + g) * size;
      const float* const result = rows.result + i * size;
      over_columns(size, [&](Index c, int lanes) {
        store_lanes(out + c, load_lanes(result + c, lanes) / total, lanes);
      });
    }
}

template <class Row>
void write_rows(const Attention& a) {
  const Index rows = a.spans.offsets[a.spans.count], size = a.head_dim;
  parallel_for(a.spans.count * a.kv_heads, static_cast<double>(4 * rows * a.kv_heads * size), [&](Index piece) {
    const Index s = piece / a.kv_heads, h = piece % a.kv_heads;
    void* const* const pages = a.spans.pages + a.spans.first_page[s];
    for (Index row = a.spans.offsets[s]; row < a.spans.offsets[s + 1]; ++row) {
      const Index position = a.spans.positions[s] + row - a.spans.offsets[s], slot = position % kPageTokens;
      Row* const to = static_cast<Row*>(pages[position / kPageTokens]);
      Row* const keys = to + a.k_offset + h * size * kPageTokens + slot;
      Row* const values = to + a.v_offset + (h * kPageTokens + slot) * size;
      const float* const key = a.k + row * a.k_stride + h * size;
      const float* const value = a.v + row * a.v_stride + h * size;
      for (Index d = 0; d < size; ++d) put(keys[d * kPageTokens], key[d]);
      for (Index d = 0; d < size; ++d) put(values[d], value[d]);
    }
  });
}

template <class Row>
void attend(const Attention& a) {
  write_rows<Row>(a);
  const Index group = a.heads / a.kv_heads, step = group >= kTile ? 1 : kTile / group;
  // Pieces: (session, key head, tile), numbered over each session's tiles.
  Index pieces = 0;
  double work = 0;
  for (Index s = 0; s < a.spans.count; ++s) {
    const Index length = a.spans.offsets[s + 1] - a.spans.offsets[s];
    pieces += (length + step - 1) / step * a.kv_heads;
    work += static_cast<double>(length) * static_cast<double>(a.spans.positions[s] + length) *
            static_cast<double>(2 * a.heads * a.head_dim);
  }
  parallel_for(pieces, work / 8, [&](Index piece) {
    Index s = 0;
    for (;; ++s) {
      const Index here = (a.spans.offsets[s + 1] - a.spans.offsets[s] + step - 1) / step * a.kv_heads;
      if (piece < here) break;
      piece -= here;
    }
    const Index begin = piece / a.kv_heads * step, length = a.spans.offsets[s + 1] - a.spans.offsets[s];
    tile<Row>(a, s, piece % a.kv_heads, begin, begin + step < length ? step : length - begin);
  });
}

}  // namespace

void attention(const Attention& a) { a.spans.half ? attend<std::uint16_t>(a) : attend<float>(a); }

}  // namespace ramet::RAMET_ISA
