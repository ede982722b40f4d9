// Causal attention: pages in order of position, a running softmax per row. A row's arithmetic is the same whichever rows
// share its block: scores are summed over the head's columns in order, values over the page's keys in order.
#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr int kKeyVecs = kPageTokens / Vec::width;
constexpr int kRows = Vec::width == 16 ? 6 : 2;  // rows per register block: kRows * 4 vectors of sums
constexpr Index kTile = 24;                      // about how many query rows read a page together

// scores[r][0..64) = q[r] . keys, for keys [head_dim][64].
template <int R>
RAMET_INLINE void score(const float* q, Index head_dim, const float* keys, float* scores) {
  constexpr int V = 4;
  for (int part = 0; part < kKeyVecs; part += V) {
    Vec sums[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = zero();
    for (Index d = 0; d < head_dim; ++d) {
      Vec key[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) key[v] = load(keys + d * kPageTokens + (part + v) * Vec::width);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec each = all(q[r * head_dim + d]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = fma(each, key[v], sums[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(scores + r * kPageTokens + (part + v) * Vec::width, sums[r][v]);
  }
}

// result[r] = result[r] * fade[r] + weights[r][0..count) . values, for V vectors of columns, the last `lanes` wide.
template <int R, int V>
RAMET_INLINE void gather(const float* weights, const float* fade, const float* values, Index head_dim, Index count,
                         float* result, int lanes) {
  Vec sums[R][V];
  const auto width = [&](int v) { return v == V - 1 ? lanes : Vec::width; };
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sums[r][v] = load_lanes(result + r * head_dim + v * Vec::width, width(v)) * all(fade[r]);
  for (Index i = 0; i < count; ++i) {
    Vec value[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) value[v] = load_lanes(values + i * head_dim + v * Vec::width, width(v));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec each = all(weights[r * kPageTokens + i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = fma(each, value[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store_lanes(result + r * head_dim + v * Vec::width, sums[r][v], width(v));
}

// Rows that see the same first `count` keys of a page.
struct Rows {
  const float* q;   // [rows][head_dim]
  float* scores;    // [rows][64]
  float* result;    // [rows][head_dim]
  float* top;       // largest score so far
  float* total;     // sum of the weights so far
  float* fade;
};

template <int R>
void page_block(const Rows& rows, Index head_dim, const float* keys, const float* values, Index count, float scale) {
  score<R>(rows.q, head_dim, keys, rows.scores);
  const Vec lowest = all(-__builtin_inff());
  for (int r = 0; r < R; ++r) {
    float* const scores = rows.scores + r * kPageTokens;
    Vec s[kKeyVecs];
    Vec top = all(rows.top[r]);
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
    float fade[Vec::width];
    store(fade, exp(all(rows.top[r]) - all(highest)));
    rows.fade[r] = fade[0];
    rows.top[r] = highest;
    rows.total[r] = rows.total[r] * fade[0] + sum(total);
  }
  constexpr int V = 4;
  Index column = 0;
  for (; column + V * Vec::width <= head_dim; column += V * Vec::width)
    gather<R, V>(rows.scores, rows.fade, values + column, head_dim, count, rows.result + column, Vec::width);
  for (; column < head_dim; column += Vec::width) {
    const Index left = head_dim - column;
    gather<R, 1>(rows.scores, rows.fade, values + column, head_dim, count, rows.result + column,
                 left < Vec::width ? static_cast<int>(left) : Vec::width);
  }
}

void page(Rows rows, Index row_count, Index head_dim, const float* keys, const float* values, Index count,
          float scale) {
  while (row_count > 0) {
    Index done = row_count < kRows ? row_count : kRows;
    if (done == kRows)
      page_block<kRows>(rows, head_dim, keys, values, count, scale);
    else if (done >= 4) {
      done = 4;
      page_block<(kRows >= 4 ? 4 : 1)>(rows, head_dim, keys, values, count, scale);
    } else if (done >= 2) {
      done = 2;
      page_block<2>(rows, head_dim, keys, values, count, scale);
    } else {
      page_block<1>(rows, head_dim, keys, values, count, scale);
    }
    rows.q += done * head_dim;
    rows.scores += done * kPageTokens;
    rows.result += done * head_dim;
    rows.top += done;
    rows.total += done;
    rows.fade += done;
    row_count -= done;
  }
}

// `tokens` rows of session s from its row `begin` of this step on, and all the query heads of one key head.
void tile(const Attention& a, Index s, Index kv_head, Index begin, Index tokens) {
  const Index group = a.heads / a.kv_heads, count = tokens * group, size = a.head_dim;
  const Index row = a.spans.offsets[s] + begin, position = a.spans.positions[s] + begin;
  float* const* const pages = a.spans.pages + a.spans.first_page[s];

  Rows rows;
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
    const float* const keys = pages[p] + a.k_offset + kv_head * size * kPageTokens;
    const float* const values = pages[p] + a.v_offset + kv_head * size * kPageTokens;
    const Index before = p * kPageTokens;
    // Tokens that see the whole page go together; each of the others sees its own number of keys, and not one more:
    // what lies beyond may belong to another branch, or be no number at all.
    Index t = before + kPageTokens - 1 - position;
    t = t < 0 ? 0 : t > tokens ? tokens : t;
    const auto from = [&](Index token) {
      const Index i = token * group;
      return Rows{rows.q + i * size, rows.scores + i * kPageTokens, rows.result + i * size,
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

void write_rows(const Attention& a) {
  const Index rows = a.spans.offsets[a.spans.count], size = a.head_dim;
  parallel_for(a.spans.count * a.kv_heads, static_cast<double>(4 * rows * a.kv_heads * size), [&](Index piece) {
    const Index s = piece / a.kv_heads, h = piece % a.kv_heads;
    float* const* const pages = a.spans.pages + a.spans.first_page[s];
    for (Index row = a.spans.offsets[s]; row < a.spans.offsets[s + 1]; ++row) {
      const Index position = a.spans.positions[s] + row - a.spans.offsets[s], slot = position % kPageTokens;
      float* const to = pages[position / kPageTokens];
      float* const keys = to + a.k_offset + h * size * kPageTokens + slot;
      const float* const key = a.k + row * a.k_stride + h * size;
      for (Index d = 0; d < size; ++d) keys[d * kPageTokens] = key[d];
      std::memcpy(to + a.v_offset + (h * kPageTokens + slot) * size, a.v + row * a.v_stride + h * size,
                  static_cast<std::size_t>(size) * sizeof(float));
    }
  });
}

}  // namespace

void attention(const Attention& a) {
  write_rows(a);
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
    tile(a, s, piece % a.kv_heads, begin, begin + step < length ? step : length - begin);
  });
}

}  // namespace ramet::RAMET_ISA
