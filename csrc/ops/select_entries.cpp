// The indexer: which compressed entries a token attends to. An entry's score is the sum over the indexer's heads of
// weight * max(0, q . key); the largest are taken, of equal ones the lowest.
#include <algorithm>

#include "../parallel.h"
#include "best_places.h"
#include "entries.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr Index kRange = 512;          // entries per piece
constexpr Index kScores = 1 << 20;     // scores kept at a time, unless one token has more

// The scores of entries [from, to) for one row.
template <class Row>
void score(const SelectEntries& a, Index s, Index row, Index from, Index to, float* scores) {
  float* const turned = scratch(1, static_cast<std::size_t>((a.size + kKeyBlock) * kQueries));
  float* const products = turned + a.size * kQueries;
  void* const* const pages = a.spans.pages + a.spans.first_page[s];
  std::fill(scores + from, scores + to, 0.0f);
  for (Index h = 0; h < a.heads; h += kQueries) {
    const Index heads = a.heads - h < kQueries ? a.heads - h : kQueries;
    turn_queries(a.q + row * a.q_stride + h * a.size, heads, a.size, turned);
    Vec weights[kQueryVecs];
    for (int v = 0; v < kQueryVecs; ++v) {
      const Index left = heads - v * Vec::width;
      const float* const at = a.weights + row * a.weights_stride + h + v * Vec::width;
      weights[v] = left <= 0 ? zero() : load_lanes(at, left < Vec::width ? static_cast<int>(left) : Vec::width);
    }
    for (Index e = from; e < to; e += kKeyBlock) {
      const Index count = to - e < kKeyBlock ? to - e : kKeyBlock;
      const Row* keys[kKeyBlock];
      for (Index i = 0; i < count; ++i) keys[i] = entry_at<Row>(pages, e + i, a.ratio, a.size, a.entry_offset);
      score_keys(keys, count, a.size, turned, products);
      for (Index i = 0; i < count; ++i) {
        Vec total = zero();
        for (int v = 0; v < kQueryVecs; ++v) {
          const Vec positive = max(zero(), load(products + i * kQueries + v * Vec::width)) * all(a.scale);
          total = fma(positive, weights[v], total);
        }
        scores[e + i] += sum(total);
      }
    }
  }
}

// The `top_k` best of `count` entries in ascending order, then -1. Writes over the scores.
void choose(float* scores, Index count, Index top_k, std::int32_t* chosen) {
  if (count > top_k) return best_places(scores, count, top_k, chosen);
  for (Index e = 0; e < top_k; ++e) chosen[e] = e < count ? static_cast<std::int32_t>(e) : -1;
}

struct Place {
  Index session, entries;  // entries: how many the row sees
};

}  // namespace

void select_entries(const SelectEntries& a) {
  const Index rows = a.spans.offsets[a.spans.count];
  const auto place = [&](Index row) {
    Index s = 0;
    while (row >= a.spans.offsets[s + 1]) ++s;
    return Place{s, (a.spans.positions[s] + row - a.spans.offsets[s] + 1) / a.ratio};
  };
  for (Index begin = 0; begin < rows;) {
    // As many rows at a time as fit.
    Index widest = 0, end = begin;
    for (; end < rows; ++end) {
      const Index entries = place(end).entries, wider = entries > widest ? entries : widest;
      if (end > begin && wider * (end + 1 - begin) > kScores) break;
      widest = wider;
    }
    float* const scores = scratch(0, static_cast<std::size_t>(widest * (end - begin) + 1));
    const Index ranges = (widest + kRange - 1) / kRange;
    const double work = static_cast<double>((end - begin) * widest) * static_cast<double>(a.heads * a.size);
    parallel_for((end - begin) * ranges, work / 8, [&](Index piece) {
      const Index row = begin + piece / ranges, from = piece % ranges * kRange;
      const Place at = place(row);
      if (at.entries <= a.top_k || from >= at.entries) return;  // all of them are taken; or there are no more
      const Index to = from + kRange < at.entries ? from + kRange : at.entries;
      if (a.spans.half)
        score<std::uint16_t>(a, at.session, row, from, to, scores + (row - begin) * widest);
      else
        score<float>(a, at.session, row, from, to, scores + (row - begin) * widest);
    });
    parallel_for(end - begin, static_cast<double>((end - begin) * widest) * 8, [&](Index piece) {
      choose(scores + piece * widest, place(begin + piece).entries, a.top_k, a.chosen + (begin + piece) * a.top_k);
    });
    begin = end;
  }
}

}  // namespace ramet::RAMET_ISA
