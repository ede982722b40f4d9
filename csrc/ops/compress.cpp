// Compressed entries: a group of tokens pooled column by column by a softmax over their gates, then normed and rotated.
//
// The softmax runs token by token, so an unfinished group is three numbers a column whatever its length: the largest
// gate, the sum of the weights and the weighted sum. With two series, the first half of a token's columns goes into the
// next group's entry and the second half into its own group's: two such sums are under way.
#include "../parallel.h"
#include "entries.h"
#include "norms.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr Index kStrip = 128;  // columns per piece

// One entry under way, [3][size] in the state: largest gate, total weight, weighted sum.
struct Pool {
  float* top;
  float* total;
  float* sum;
};

Pool pool_at(float* state, Index number, Index size) {
  float* const top = state + number * 3 * size;
  return {top, top + size, top + 2 * size};
}

void empty(const Pool& p, Index from, Index columns) {
  for (Index c = from; c < from + columns; ++c) {
    p.top[c] = -__builtin_inff();
    p.total[c] = p.sum[c] = 0;
  }
}

void add(const Pool& p, Index from, Index columns, const float* gate, const float* bias, const float* kv) {
  over_columns(columns, [&](Index c, int lanes) {
    const Index at = from + c;
    const Vec g = load_lanes(gate + at, lanes) + load_lanes(bias + at, lanes);
    const Vec before = load_lanes(p.top + at, lanes), top = max(before, g);
    const Vec fade = exp(before - top), weight = exp(g - top);
    store_lanes(p.top + at, top, lanes);
    store_lanes(p.total + at, fma(load_lanes(p.total + at, lanes), fade, weight), lanes);
    const Vec sum = load_lanes(p.sum + at, lanes) * fade;
    store_lanes(p.sum + at, fma(weight, load_lanes(kv + at, lanes), sum), lanes);
  });
}

// Session s, columns [from, from + columns): pools the new tokens; finished entries go to `pooled`, [entries][size].
void pool(const Compress& a, Index s, Index from, Index columns, float* pooled) {
  float* const state = a.spans.states[s] + a.state_offset;
  const Pool own = pool_at(state, 0, a.size), next = pool_at(state, 1, a.size);
  Index done = 0;
  for (Index row = a.spans.offsets[s]; row < a.spans.offsets[s + 1]; ++row) {
    const Index position = a.spans.positions[s] + row - a.spans.offsets[s], place = position % a.ratio;
    if (place == 0) {
      if (a.series == 1 || position == 0) {
        empty(own, from, columns);
      } else {
        const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
        std::memcpy(own.top + from, next.top + from, bytes);
        std::memcpy(own.total + from, next.total + from, bytes);
        std::memcpy(own.sum + from, next.sum + from, bytes);
      }
      if (a.series == 2) empty(next, from, columns);
    }
    const float* const gate = a.gate + row * a.gate_stride;
    const float* const kv = a.kv + row * a.kv_stride;
    const float* const bias = a.bias + place * a.series * a.size;
    if (a.series == 2) add(next, from, columns, gate, bias, kv);
    const Index half = (a.series - 1) * a.size;
    add(own, from, columns, gate + half, bias + half, kv + half);
    if (place == a.ratio - 1) {
      float* const out = pooled + done++ * a.size + from;
      over_columns(columns, [&](Index c, int lanes) {
        store_lanes(out + c, load_lanes(own.sum + from + c, lanes) / load_lanes(own.total + from + c, lanes), lanes);
      });
    }
  }
}

// Norms and rotates the entry that row `row` of session s finished, and writes it into its page.
template <class Row>
void write(const Compress& a, Index s, Index entry, float* x) {
  const Index row = a.spans.offsets[s] + (entry + 1) * a.ratio - 1 - a.spans.positions[s];
  const Vec scale = all(inverse_rms(x, a.size, a.eps));
  over_columns(a.size, [&](Index c, int lanes) {
    store_lanes(x + c, load_lanes(x + c, lanes) * scale * load_lanes(a.norm + c, lanes), lanes);
  });
  const float* const cosines = a.table + row * a.rotary;
  const float* const sines = cosines + a.rotary / 2;
  float* const pairs = x + a.size - a.rotary;
  for (Index j = 0; j < a.rotary / 2; ++j) {
    const float left = pairs[2 * j], right = pairs[2 * j + 1];
    pairs[2 * j] = left * cosines[j] - right * sines[j];
    pairs[2 * j + 1] = right * cosines[j] + left * sines[j];
  }
  Row* const to = entry_at<Row>(a.spans.pages + a.spans.first_page[s], entry, a.ratio, a.size, a.entry_offset);
  for (Index c = 0; c < a.size; ++c) put(to[c], x[c]);
}

}  // namespace

void compress(const Compress& a) {
  const Index strips = (a.size + kStrip - 1) / kStrip, rows = a.spans.offsets[a.spans.count];
  // first[s]: how many entries the sessions before s finish in this step.
  const Index sessions = a.spans.count;
  const auto begun = [&](Index s) { return a.spans.positions[s] / a.ratio; };
  const auto ended = [&](Index s) {
    return (a.spans.positions[s] + a.spans.offsets[s + 1] - a.spans.offsets[s]) / a.ratio;
  };
  Index finished = 0;
  for (Index s = 0; s < sessions; ++s) finished += ended(s) - begun(s);
  float* const pooled = scratch(0, static_cast<std::size_t>(finished * a.size + 1));
  const auto before = [&](Index s) {
    Index entries = 0;
    for (Index t = 0; t < s; ++t) entries += ended(t) - begun(t);
    return entries;
  };
  parallel_for(sessions * strips, static_cast<double>(rows * a.series * a.size * 40), [&](Index piece) {
    const Index s = piece / strips, from = piece % strips * kStrip;
    pool(a, s, from, from + kStrip < a.size ? kStrip : a.size - from, pooled + before(s) * a.size);
  });
  parallel_for(finished, static_cast<double>(finished * a.size * 8), [&](Index piece) {
    Index s = 0, done = piece;
    for (; done >= ended(s) - begun(s); ++s) done -= ended(s) - begun(s);
    if (a.spans.half)
      write<std::uint16_t>(a, s, begun(s) + done, pooled + piece * a.size);
    else
      write<float>(a, s, begun(s) + done, pooled + piece * a.size);
  });
}

}  // namespace ramet::RAMET_ISA
