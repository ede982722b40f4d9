// The rows with the highest BM25 over lists of postings: exact, by MaxScore (Turtle and Flood 1995) within blocks of rows.
//
// Terms are taken from the rarest on. Once those that are left could not lift a new row into the answer, only rows that
// are candidates already are looked up in them, and those that cannot reach the answer any more are dropped. Blocks come
// one after the other, so the answer of the earlier ones is the bar for the later: most of them end after the rare terms.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../ops.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr std::uint32_t kRowMask = kPostingRows - 1;
constexpr double kSlack = 1 + 1e-9;  // sums differ in their last bits with the order of their parts
constexpr Index kLists = 2;          // before the terms: the list of the scope, and that of the kind
constexpr Index kNear = 64;
constexpr Index kScan = 16;          // a lookup costs about as much as so many postings that are passed over

struct Best {
  double score;
  std::int64_t row;
};

bool better(const Best& a, const Best& b) { return a.score > b.score || (a.score == b.score && a.row < b.row); }

class Ranking {
 public:
  explicit Ranking(const RankPostings& a)
      : a_(a), idf_(count(a.terms)), order_(count(a.terms)), left_(count(a.terms) + 1), norm_(kPostingLengths),
        scores_(kPostingRows), allowed_(kPostingRows), touched_(kPostingRows + 1), rows_(kPostingRows),
        first_(count(a.terms + kLists + 1)) {
    for (int length = 0; length < kPostingLengths; ++length)
      norm_[count(length)] = a.k1 * (1 - a.b + a.b * length / std::max(a.mean_length, 1e-9));
  }

  Index run() {
    weigh();
    for_blocks([this](std::int64_t base) { a_.scoped || a_.one_kind ? rank<true>(base) : rank<false>(base); });
    std::sort_heap(best_.begin(), best_.end(), better);
    for (std::size_t i = 0; i < best_.size(); ++i) {
      a_.rows[i] = best_[i].row;
      a_.scores[i] = best_[i].score;
    }
    return static_cast<Index>(best_.size());
  }

 private:
  static std::size_t count(Index n) { return static_cast<std::size_t>(n); }

  // Calls body(first row) for every block that has pieces, `first_` saying which of them are whose.
  template <class Body>
  void for_blocks(Body&& body) {
    for (Index from = 0; from < a_.pieces;) {
      const std::int64_t base = a_.starts[from] & ~static_cast<std::int64_t>(kRowMask);
      Index to = from;
      for (Index list = 0; list <= a_.terms + kLists; ++list) {
        first_[count(list)] = to;
        while (to < a_.pieces && a_.lists[to] == list && a_.starts[to] < base + kPostingRows) ++to;
      }
      body(base);
      from = to;
    }
  }

  template <class Body>
  void for_postings(Index list, Body&& body) {
    for (Index piece = first_[count(list)]; piece < first_[count(list + 1)]; ++piece) {
      const std::uint32_t* const postings = a_.postings[piece];
      const Index size = a_.sizes[piece];
      for (Index i = 0; i < size; ++i) body(postings[i]);
    }
  }

  // The idf of every term in the scope, and the order in which they are taken.
  void weigh() {
    std::vector<std::int64_t> frequency(count(a_.terms));
    for_blocks([&](std::int64_t) {
      if (a_.scoped) for_postings(0, [&](std::uint32_t posting) { allowed_[posting & kRowMask] = 1; });
      for (Index term = 0; term < a_.terms; ++term) {
        std::int64_t& found = frequency[count(term)];
        if (a_.scoped) {
          for_postings(kLists + term, [&](std::uint32_t posting) { found += allowed_[posting & kRowMask]; });
        } else {
          for (Index piece = first_[count(kLists + term)]; piece < first_[count(kLists + term + 1)]; ++piece)
            found += a_.sizes[piece];
        }
      }
      if (a_.scoped) std::fill(allowed_.begin(), allowed_.end(), std::uint8_t{0});
    });
    for (Index term = 0; term < a_.terms; ++term) {
      const double df = static_cast<double>(frequency[count(term)]), n = static_cast<double>(a_.turns);
      const double idf = std::max(std::log1p((n - df + 0.5) / (df + 0.5)), 1e-12);
      idf_[count(term)] = a_.weights[term] * idf * (a_.k1 + 1);
      order_[count(term)] = term;
    }
    std::stable_sort(order_.begin(), order_.end(),
                     [this](Index x, Index y) { return idf_[count(x)] > idf_[count(y)]; });
  }

  // What the terms from each on may add in this block.
  void bound() {
    for (Index i = a_.terms; i-- > 0;) {
      const Index term = order_[count(i)];
      double most = 0;
      for (Index piece = first_[count(kLists + term)]; piece < first_[count(kLists + term + 1)]; ++piece)
        for (int j = 0; j < kPostingBounds; ++j)
          most = std::max(most, impact(term, a_.bounds[piece * kPostingBounds + j]));
      left_[count(i)] = left_[count(i + 1)] + most;
    }
  }

  double impact(Index term, std::uint32_t posting) const {
    const double frequency = static_cast<double>((posting >> kPostingRowBits & kPostingFrequencies) + 1);
    return idf_[count(term)] * (frequency / (frequency + norm_[posting >> kPostingLengthShift]));
  }

  template <bool filtered>
  void rank(std::int64_t base) {
    const std::uint8_t wanted = static_cast<std::uint8_t>((a_.scoped ? 1 : 0) | (a_.one_kind ? 2 : 0));
    if (filtered) {
      std::fill(allowed_.begin(), allowed_.end(), std::uint8_t{0});
      if (a_.scoped) for_postings(0, [this](std::uint32_t posting) { allowed_[posting & kRowMask] |= 1; });
      if (a_.one_kind) for_postings(1, [this](std::uint32_t posting) { allowed_[posting & kRowMask] |= 2; });
    }
    const double floor = static_cast<Index>(best_.size()) < a_.k ? 0 : best_.front().score;
    bound();
    Index touched = 0, next = 0;
    for (; next < a_.terms && left_[count(next)] * kSlack > floor; ++next) {
      const Index term = order_[count(next)];
      for_postings(kLists + term, [&](std::uint32_t posting) {
        const std::uint32_t row = posting & kRowMask;
        if (filtered && allowed_[row] != wanted) return;
        double& score = scores_[row];
        touched_[count(touched)] = row;
        touched += score == 0;
        score += impact(term, posting);
      });
    }
    std::copy_n(touched_.begin(), touched, rows_.begin());
    Index kept = touched;
    for (; next < a_.terms && kept > 0; ++next) {
      kept = drop(kept, left_[count(next)], floor);
      look_up(order_[count(next)], kept);
    }
    for (Index i = 0; i < kept; ++i) offer({scores_[rows_[count(i)]], base + rows_[count(i)]});
    for (Index i = 0; i < touched; ++i) scores_[touched_[count(i)]] = 0;
  }

  // Keeps the candidates that can still pass the floor if they get `left`.
  Index drop(Index candidates, double left, double floor) {
    Index kept = 0;
    for (Index i = 0; i < candidates; ++i) {
      const std::uint32_t row = rows_[count(i)];
      rows_[count(kept)] = row;
      kept += (scores_[row] + left) * kSlack > floor;
    }
    return kept;
  }

  void look_up(Index term, Index candidates) {
    for (Index piece = first_[count(kLists + term)]; piece < first_[count(kLists + term + 1)]; ++piece) {
      const std::uint32_t* const postings = a_.postings[piece];
      const Index size = a_.sizes[piece];
      if (candidates * kScan > size) {
        for (Index i = 0; i < size; ++i) {
          double& score = scores_[postings[i] & kRowMask];
          if (score != 0) score += impact(term, postings[i]);  // of one that was dropped: to no effect
        }
      } else {
        for (Index i = 0; i < candidates; ++i) {
          const std::uint32_t row = rows_[count(i)];
          const std::uint32_t* at = postings;
          Index within = size;
          // In a long list a row is about where it would be if all were as far apart.
          const Index low = (row * size >> kPostingRowBits) - kNear, high = low + 2 * kNear;
          if (low >= 0 && high < size && (postings[low] & kRowMask) <= row && (postings[high] & kRowMask) > row) {
            at += low;
            within = 2 * kNear;
          }
          for (Index n = within; n > 1;) {
            const Index half = n / 2;
            at += (at[half] & kRowMask) <= row ? half : 0;
            n -= half;
          }
          if (size > 0 && (*at & kRowMask) == row) scores_[row] += impact(term, *at);
        }
      }
    }
  }

  void offer(const Best& found) {
    if (static_cast<Index>(best_.size()) < a_.k) {
      best_.push_back(found);
      std::push_heap(best_.begin(), best_.end(), better);
    } else if (better(found, best_.front())) {
      std::pop_heap(best_.begin(), best_.end(), better);
      best_.back() = found;
      std::push_heap(best_.begin(), best_.end(), better);
    }
  }

  const RankPostings& a_;
  std::vector<double> idf_;  // times the weight and k1 + 1
  std::vector<Index> order_;
  std::vector<double> left_, norm_, scores_;
  std::vector<std::uint8_t> allowed_;
  std::vector<std::uint32_t> touched_, rows_;
  std::vector<Index> first_;
  std::vector<Best> best_;
};

}  // namespace

Index rank_postings(const RankPostings& a) { return a.k < 1 ? 0 : Ranking(a).run(); }

}  // namespace ramet::RAMET_ISA
