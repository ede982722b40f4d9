// Causal attention: pages, each a block of keys, in order of position. `Row` is what a page holds: float, or
// std::uint16_t for bfloat16, rounded once, when the row is written.
#include "../parallel.h"
#include "key_blocks.h"

namespace ramet::RAMET_ISA {
namespace {

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
    if (t < tokens) pass_block<kPageTokens>(from(t), (tokens - t) * group, size, keys, values, kPageTokens, a.scale);
    for (Index each = 0; each < t; ++each) {
      const Index seen = position + each - before + 1;
      if (seen > 0) pass_block<kPageTokens>(from(each), group, size, keys, values, seen, a.scale);
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
