// The indexer of DeepSeek Sparse Attention: which `top_k` of the rows before it a token attends to.
//
// A row's score is the sum over heads, in order, of weight * max(0, q . k). Scores are kept for a few tokens at a time,
// so memory grows with the length, not with its square. Of equal scores the earlier row is taken.
#include <vector>

#include "../parallel.h"
#include "best_places.h"
#include "register_blocks.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr int kVecs = 2;        // vectors of keys per register block
constexpr Index kTokens = 8;    // of a tile, which read a page together
constexpr Index kTiles = 8;     // whose scores are kept at a time
constexpr Index kSegment = 16;  // pages per piece of work

// Adds weights[h] * max(0, q[h] . keys) of R heads, in order, to the scores of kVecs vectors of keys, [head_dim][64].
template <int R>
void add_heads(const float* q, const float* weights, Index head_dim, const float* keys, Vec* scores) {
  Vec sums[R][kVecs];
  products<kPageTokens>([=](int r) { return q + r * head_dim; }, head_dim, keys, sums);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) scores[v] = fma(all(weights[r]), max(zero(), sums[r][v]), scores[v]);
}

void strip(const float* q, const float* weights, Index heads, Index head_dim, const float* keys, float* scores) {
  Vec sums[kVecs];
  for (Vec& each : sums) each = zero();
  over_register_blocks(heads, [&](Index h, auto block) {
    add_heads<block>(q + h * head_dim, weights + h, head_dim, keys, sums);
  });
  for (int v = 0; v < kVecs; ++v) store(scores + v * Vec::width, sums[v]);
}

// Tokens of one session, from row `row` and absolute position `position` on.
struct Tile {
  Index session, row, position, tokens;
  Index pages() const { return (position + tokens - 1) / kPageTokens + 1; }
  Index segments() const { return (pages() + kSegment - 1) / kSegment; }
};

// Scores of a tile's tokens for the pages of a segment: scores[t * stride + position].
template <class Row>
void score(const Indexer& a, const Tile& tile, Index segment, float* scores, Index stride) {
  float* const room = scratch(1, static_cast<std::size_t>(a.head_dim * kPageTokens));
  const Index end = (segment + 1) * kSegment < tile.pages() ? (segment + 1) * kSegment : tile.pages();
  for (Index p = segment * kSegment; p < end; ++p) {
    const Row* const page = static_cast<const Row*>(a.spans.pages[a.spans.first_page[tile.session] + p]) + a.offset;
    const float* keys = room;
    if constexpr (std::is_same_v<Row, float>)
      keys = page;
    else
      for (Index i = 0; i < a.head_dim * kPageTokens; i += Vec::width) store(room + i, load(page + i));
    for (Index key = 0; key < kPageTokens; key += kVecs * Vec::width)
      for (Index t = 0; t < tile.tokens; ++t)
        strip(a.q + (tile.row + t) * a.q_stride, a.weights + (tile.row + t) * a.weights_stride, a.heads, a.head_dim,
              keys + key, scores + t * stride + p * kPageTokens + key);
  }
}

template <class Row>
void write_keys(const Indexer& a) {
  for (Index s = 0; s < a.spans.count; ++s)
    for (Index row = a.spans.offsets[s]; row < a.spans.offsets[s + 1]; ++row) {
      const Index position = a.spans.positions[s] + row - a.spans.offsets[s];
      Row* const to = static_cast<Row*>(a.spans.pages[a.spans.first_page[s] + position / kPageTokens]) + a.offset +
                      position % kPageTokens;
      const float* const key = a.k + row * a.k_stride;
      for (Index d = 0; d < a.head_dim; ++d) put(to[d * kPageTokens], key[d]);
    }
}

template <class Row>
void choose(const Indexer& a) {
  write_keys<Row>(a);
  std::vector<Tile> tiles;  // of the tokens that see more than top_k rows
  for (Index s = 0; s < a.spans.count; ++s) {
    const Index position = a.spans.positions[s], end = position + a.spans.offsets[s + 1] - a.spans.offsets[s];
    for (Index at = position > a.top_k ? position : a.top_k; at < end; at += kTokens)
      tiles.push_back({s, a.spans.offsets[s] + at - position, at, end - at < kTokens ? end - at : kTokens});
  }
  const Index count = static_cast<Index>(tiles.size());
  for (Index first = 0; first < count; first += kTiles) {
    const Index last = first + kTiles < count ? first + kTiles : count;
    Index pages = 0, segments[kTiles + 1] = {};
    double work = 0;
    for (Index i = first; i < last; ++i) {
      const Tile& tile = tiles[static_cast<std::size_t>(i)];
      pages = tile.pages() > pages ? tile.pages() : pages;
      segments[i - first + 1] = segments[i - first] + tile.segments();
      work += static_cast<double>(tile.tokens * tile.pages() * kPageTokens);
    }
    const Index stride = pages * kPageTokens;
    float* const scores = scratch(0, static_cast<std::size_t>(kTiles * kTokens * stride));
    parallel_for(segments[last - first], work * static_cast<double>(a.heads * a.head_dim) / 8, [&](Index piece) {
      Index i = 0;
      while (segments[i + 1] <= piece) ++i;
      score<Row>(a, tiles[static_cast<std::size_t>(first + i)], piece - segments[i], scores + i * kTokens * stride,
                 stride);
    });
    parallel_for((last - first) * kTokens, 4 * work, [&](Index i) {
      const Tile& tile = tiles[static_cast<std::size_t>(first + i / kTokens)];
      const Index t = i % kTokens;
      if (t < tile.tokens)
        best_places(scores + i * stride, tile.position + t + 1, a.top_k, a.chosen + (tile.row + t) * a.top_k);
    });
  }
}

}  // namespace

void indexer(const Indexer& a) { a.spans.half ? choose<std::uint16_t>(a) : choose<float>(a); }

}  // namespace ramet::RAMET_ISA
