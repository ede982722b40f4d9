// Attention over a window of raw keys and over compressed entries, each of them key and value at once, for many heads.
// Keys are walked in blocks of 64, each row by itself: first the window from the oldest on, then the entries in order.
// Nothing is ever kept for more keys than one block.
#include "../parallel.h"
#include "entries.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr int kHeadRows = 8;  // heads of the largest register block of one vector

// One row's heads, at most kQueries of them.
struct Heads {
  Index count, size;
  const float* turned;  // [size][kQueries]
  float* scores;        // [kKeyBlock][kQueries]
  float* top;           // kQueries each: largest score so far,
  float* total;         // sum of the weights so far,
  float* fade;          // what the last block made of them
  float* result;        // [count][size]
};

// Attends to up to kKeyBlock keys more.
template <class Row>
void attend(const Heads& a, const Row* const* keys, Index count, float scale) {
  score_keys(keys, count, a.size, a.turned, a.scores);
  for (int v = 0; v < kQueryVecs; ++v) {
    float* const scores = a.scores + v * Vec::width;
    const Vec before = load(a.top + v * Vec::width);
    Vec top = before;
    for (Index i = 0; i < count; ++i) top = max(top, load(scores + i * kQueries) * all(scale));
    const Vec fade = exp(before - top);
    Vec total = load(a.total + v * Vec::width) * fade;
    for (Index i = 0; i < count; ++i) {
      const Vec weight = exp(load(scores + i * kQueries) * all(scale) - top);
      total = total + weight;
      store(scores + i * kQueries, weight);
    }
    store(a.top + v * Vec::width, top);
    store(a.total + v * Vec::width, total);
    store(a.fade + v * Vec::width, fade);
  }
  over_columns(a.size, [&](Index column, int lanes) {
    over_register_blocks<kHeadRows>(a.count, [&](Index h, auto block) {
      add_values<1, kQueries, block, 1>(a.scores + h, a.fade + h, [=](Index i) { return keys[i] + column; }, count,
                                        a.result + h * a.size + column, a.size, lanes);
    });
  });
}

template <class Row>
void attend_to_entries(const EntryAttention& a, const Heads& heads, Index s, Index row, Index seen) {
  void* const* const pages = a.spans.pages + a.spans.first_page[s];
  const std::int32_t* const chosen = a.chosen == nullptr ? nullptr : a.chosen + row * a.top_k;
  const Index taken = chosen != nullptr && a.top_k < seen ? a.top_k : seen;
  for (Index e = 0; e < taken; e += kKeyBlock) {
    const Index count = taken - e < kKeyBlock ? taken - e : kKeyBlock;
    const Row* keys[kKeyBlock];
    for (Index i = 0; i < count; ++i)
      keys[i] = entry_at<Row>(pages, chosen != nullptr ? chosen[e + i] : e + i, a.ratio, a.size, a.entry_offset);
    attend(heads, keys, count, a.scale);
  }
}

// Row `row` of session s, `count` heads from `first` on.
void attend_row(const EntryAttention& a, Index s, Index row, Index first, Index count) {
  const Index t = row - a.spans.offsets[s], position = a.spans.positions[s] + t;
  float* const turned = scratch(1, static_cast<std::size_t>((a.size + kKeyBlock + 3) * kQueries));
  float* const scores = turned + a.size * kQueries;
  float* const top = scores + kKeyBlock * kQueries;
  float* const out = a.out + (row * a.heads + first) * a.size;
  const Heads heads{count, a.size, turned, scores, top, top + kQueries, top + 2 * kQueries, out};
  turn_queries(a.q + row * a.q_stride + first * a.size, count, a.size, turned);
  std::memset(out, 0, static_cast<std::size_t>(count * a.size) * sizeof(float));
  for (Index h = 0; h < kQueries; ++h) {
    top[h] = h < count ? a.sinks[first + h] : 0.0f;
    heads.total[h] = 1.0f;  // a sink is a key without a value
  }

  const float* const window = a.spans.states[s] + a.window_offset;
  const Index oldest = position - a.window + 1 > 0 ? position - a.window + 1 : 0;
  for (Index p = oldest; p <= position; p += kKeyBlock) {
    const Index keys_here = position + 1 - p < kKeyBlock ? position + 1 - p : kKeyBlock;
    const float* keys[kKeyBlock];
    for (Index i = 0; i < keys_here; ++i) {
      const Index back = p + i - a.spans.positions[s];
      keys[i] = back >= 0 ? a.kv + (a.spans.offsets[s] + back) * a.kv_stride : window + (p + i) % a.window * a.size;
    }
    attend(heads, keys, keys_here, a.scale);
  }
  if (a.ratio > 0) {
    const Index seen = (position + 1) / a.ratio;
    if (a.spans.half)
      attend_to_entries<std::uint16_t>(a, heads, s, row, seen);
    else
      attend_to_entries<float>(a, heads, s, row, seen);
  }
  for (Index h = 0; h < count; ++h) {
    const Vec total = all(heads.total[h]);
    over_columns(a.size, [&](Index c, int lanes) {
      store_lanes(out + h * a.size + c, load_lanes(out + h * a.size + c, lanes) / total, lanes);
    });
  }
}

}  // namespace

void entry_attention(const EntryAttention& a) {
  const Index rows = a.spans.offsets[a.spans.count], blocks = (a.heads + kQueries - 1) / kQueries;
  double keys = 0;
  for (Index s = 0; s < a.spans.count; ++s) {
    const Index length = a.spans.offsets[s + 1] - a.spans.offsets[s], end = a.spans.positions[s] + length;
    const Index entries = a.ratio == 0 ? 0 : end / a.ratio;
    const Index taken = a.chosen != nullptr && a.top_k < entries ? a.top_k : entries;
    keys += static_cast<double>(length) * static_cast<double>((a.window < end ? a.window : end) + taken);
  }
  parallel_for(rows * blocks, keys * static_cast<double>(2 * a.heads * a.size) / 8, [&](Index piece) {
    const Index row = piece / blocks, first = piece % blocks * kQueries;
    Index s = 0;
    while (row >= a.spans.offsets[s + 1]) ++s;
    attend_row(a, s, row, first, a.heads - first < kQueries ? a.heads - first : kQueries);
  });
  // The window moves on when all have read it: position p is kept at p % window.
  parallel_for(a.spans.count, static_cast<double>(rows * a.size), [&](Index s) {
    const Index length = a.spans.offsets[s + 1] - a.spans.offsets[s];
    float* const window = a.spans.states[s] + a.window_offset;
    for (Index t = length > a.window ? length - a.window : 0; t < length; ++t)
      std::memcpy(window + (a.spans.positions[s] + t) % a.window * a.size,
                  a.kv + (a.spans.offsets[s] + t) * a.kv_stride, static_cast<std::size_t>(a.size) * sizeof(float));
  });
}

}  // namespace ramet::RAMET_ISA
