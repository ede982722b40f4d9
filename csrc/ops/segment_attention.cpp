// Attention in which all rows of a segment see each other. Its keys and values are laid out in blocks, a few heads at a
// time; then every tile of its rows passes over all blocks in order.
#include "../parallel.h"
#include "key_blocks.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr Index kKeys = 128;                // of a block: the largest score is looked for once a block
constexpr Index kLaidOut = Index{1} << 22;  // floats of keys and values at a time, if one head needs no more

// Blocks of one head's keys and values in a segment: all keys, then all values, the last block filled up with zeros.
struct Blocks {
  const SegmentAttention& a;
  Index begin, length, count;
  Blocks(const SegmentAttention& a, Index s)
      : a(a), begin(a.offsets[s]), length(a.offsets[s + 1] - begin), count((length + kKeys - 1) / kKeys) {}
  Index floats() const { return 2 * count * kKeys * a.head_dim; }
  Index rows_of(Index block) const { return block + 1 < count ? kKeys : length - block * kKeys; }
};

void lay_out(const Blocks& blocks, Index head, Index block, float* memory) {
  const SegmentAttention& a = blocks.a;
  const Index size = a.head_dim, rows = blocks.rows_of(block), first = blocks.begin + block * kKeys;
  float* const keys = memory + block * kKeys * size;
  float* const values = keys + blocks.count * kKeys * size;
  if (rows < kKeys) std::memset(keys, 0, static_cast<std::size_t>(kKeys * size) * sizeof(float));
  for (Index i = 0; i < rows; ++i) {
    const float* const key = a.k + (first + i) * a.k_stride + head * size;
    for (Index d = 0; d < size; ++d) keys[d * kKeys + i] = key[d];
    std::memcpy(values + i * size, a.v + (first + i) * a.v_stride + head * size,
                static_cast<std::size_t>(size) * sizeof(float));
  }
}

// `count` rows of the segment from its row `begin` on.
void tile(const Blocks& blocks, Index head, Index begin, Index count, const float* memory) {
  const SegmentAttention& a = blocks.a;
  const Index size = a.head_dim, row = blocks.begin + begin;
  float* const q = scratch(1, static_cast<std::size_t>(count * (2 * size + kKeys + 3)));
  Queries rows;
  rows.q = q;
  rows.result = q + count * size;
  rows.scores = rows.result + count * size;
  rows.top = rows.scores + count * kKeys;
  rows.total = rows.top + count;
  rows.fade = rows.total + count;
  for (Index i = 0; i < count; ++i)
    std::memcpy(q + i * size, a.q + (row + i) * a.q_stride + head * size,
                static_cast<std::size_t>(size) * sizeof(float));
  std::memset(rows.result, 0, static_cast<std::size_t>(count * size) * sizeof(float));
  for (Index i = 0; i < count; ++i) {
    rows.top[i] = -__builtin_inff();
    rows.total[i] = 0;
  }
  for (Index b = 0; b < blocks.count; ++b) {
    const float* const keys = memory + b * kKeys * size;
    pass_block<kKeys>(rows, count, size, keys, keys + blocks.count * kKeys * size, blocks.rows_of(b), a.scale);
  }
  for (Index i = 0; i < count; ++i) {
    const Vec total = all(rows.total[i]);
    float* const out = a.out + (row + i) * a.heads * size + head * size;
    const float* const result = rows.result + i * size;
    over_columns(size, [&](Index c, int lanes) {
      store_lanes(out + c, load_lanes(result + c, lanes) / total, lanes);
    });
  }
}

}  // namespace

void segment_attention(const SegmentAttention& a) {
  for (Index s = 0; s < a.segments; ++s) {
    const Blocks blocks(a, s);
    const Index most = kLaidOut / blocks.floats(), at_once = most < 1 ? 1 : most < a.heads ? most : a.heads;
    const Index tiles = (blocks.length + kTile - 1) / kTile;
    float* const memory = scratch(0, static_cast<std::size_t>(at_once * blocks.floats()));
    for (Index head = 0; head < a.heads; head += at_once) {
      const Index here = head + at_once < a.heads ? at_once : a.heads - head;
      parallel_for(here * blocks.count, 2.0 * static_cast<double>(here * blocks.floats()), [&](Index piece) {
        const Index h = piece / blocks.count;
        lay_out(blocks, head + h, piece % blocks.count, memory + h * blocks.floats());
      });
      const double work = static_cast<double>(2 * here * a.head_dim) * static_cast<double>(blocks.length) *
                          static_cast<double>(blocks.length);
      parallel_for(here * tiles, work / 8, [&](Index piece) {
        const Index h = piece / tiles, begin = piece % tiles * kTile;
        const Index count = begin + kTile < blocks.length ? kTile : blocks.length - begin;
        tile(blocks, head + h, begin, count, memory + h * blocks.floats());
      });
    }
  }
}

}  // namespace ramet::RAMET_ISA
