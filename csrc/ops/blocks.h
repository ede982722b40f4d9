// y = x @ w.T: an outer-product kernel. Every output is summed over the inputs in order, one fused multiply-add each,
// in its own lane, so no blocking below can change a bit. Where the weights come from is the caller's: see `run`.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

constexpr Index kMaxRows = Vec::width == 16 ? 12 : 6;  // rows of the largest register block
constexpr Index kInputs = 1024;                        // inputs per pass over many rows,
constexpr Index kShare = 192;                          // and rows at a time: what they need stays in the L2 cache
constexpr Index kAhead = 32;                           // inputs by which a weight's load is announced
constexpr int kPanelVecs = kPanel / Vec::width;

// Loads V vectors of one input's 32 weights, starting at vector `Slice * V`.
template <int V, int Slice>
RAMET_INLINE void load_weights(const float* w, Vec (&out)[V]) {
  for (int v = 0; v < V; ++v) out[v] = load(w + (Slice * V + v) * Vec::width);
}
template <int V, int Slice>
RAMET_INLINE void load_weights(const std::uint16_t* w, Vec (&out)[V]) {
  if constexpr (V == kPanelVecs) {
    for (int v = 0; v < V / 2; ++v) load_halves(w + 2 * v * Vec::width, out[v], out[v + V / 2]);
  } else {  // half a panel: the low halves of its lanes, or the high ones
    Vec other;
    for (int v = 0; v < V; ++v) {
      if (Slice == 0)
        load_halves(w + 2 * v * Vec::width, out[v], other);
      else
        load_halves(w + 2 * v * Vec::width, other, out[v]);
    }
  }
}

// Panels in memory, as `Packed` has them. Those that are `near`, in the cache, are not announced: what lies behind them
// may be no memory, and to find that out takes long.
template <class Weight, bool near = false>
struct Panels {
  static constexpr int most_rows = kMaxRows, most_panels = 4;
  static constexpr int registers = Vec::width == 16 ? 24 : 12;  // for sums; the rest holds weights and an input
  const Weight* w;  // the first panel, at the first input
  Index stride;     // elements between panels

  Panels next() const { return {w + stride, stride}; }
  // Calls body(input, panel, weights) for P panels of every input in order.
  template <int P, int V, int Slice, class Body>
  RAMET_INLINE void each(Index inputs, Body body) const {
    const Weight* at = w;
    for (Index i = 0; i < inputs; ++i, at += kPanel) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        Vec weights[V];
        load_weights<V, Slice>(at + p * stride, weights);
        if constexpr (!near) __builtin_prefetch(at + p * stride + kAhead * kPanel);
        body(i, p, weights);
      }
    }
  }
};

template <class Weights>
struct Block {
  const float* x;    // [inputs][R], the rows side by side
  Weights weights;   // from the first panel and the first input of this pass on
  Index inputs;
  bool begins;       // the sums start here; otherwise they continue from out
  const float* add;  // added when the sums are complete; or null
  Index add_stride;
  float* out;
  Index out_stride;
  Index columns;     // outputs left from the first panel on
};

// R rows by P panels by V vectors (of each panel, those from Slice * V on).
template <int R, int P, int V, int Slice, class Weights>
void block(const Block<Weights>& b) {
  Vec sums[R][P][V];
  const auto over_outputs = [&](auto body) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        const Index column = p * kPanel + (Slice * V + v) * Vec::width;
        const Index lanes = b.columns - column;
        if (lanes > 0) body(p, v, column, lanes < Vec::width ? static_cast<int>(lanes) : Vec::width);
      }
  };
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][p][v] = zero();
  if (!b.begins)
    over_outputs([&](int p, int v, Index column, int lanes) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r][p][v] = load_lanes(b.out + r * b.out_stride + column, lanes);
    });
  const float* const x = b.x;
  b.weights.template each<P, V, Slice>(b.inputs, [&](Index i, int p, const Vec(&weights)[V]) RAMET_INLINE_LAMBDA {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec each = all(x[i * R + r]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][p][v] = fma(each, weights[v], sums[r][p][v]);
    }
  });
  over_outputs([&](int p, int v, Index column, int lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec sum = sums[r][p][v];
      if (b.add != nullptr) sum = load_lanes(b.add + r * b.add_stride + column, lanes) + sum;
      store_lanes(b.out + r * b.out_stride + column, sum, lanes);
    }
  });
}

template <int R, int P, class Weights>
void panels(const Block<Weights>& b) {
  if constexpr (R * P * kPanelVecs <= Weights::registers) {
    block<R, P, kPanelVecs, 0>(b);
  } else {
    static_assert(P == 1 && kPanelVecs % 2 == 0);
    block<R, 1, kPanelVecs / 2, 0>(b);
    block<R, 1, kPanelVecs / 2, 1>(b);
  }
}

// With few rows several panels run at once: enough sums in flight to hide the latency, and several streams from memory.
constexpr int panels_at_once(int rows) {
  if (Vec::width == 16) return rows <= 3 ? 4 : rows == 4 ? 3 : rows <= 6 ? 2 : 1;
  return rows == 1 ? 3 : 1;
}

template <int R, class Weights>
void rows_block(const Block<Weights>& b, Index panel_count) {
  if constexpr (R <= Weights::most_rows) {
    constexpr int P = panels_at_once(R) < Weights::most_panels ? panels_at_once(R) : Weights::most_panels;
    if (panel_count == P) return panels<R, P>(b);
    Block<Weights> one = b;
    for (Index p = 0; p < panel_count; ++p) {
      panels<R, 1>(one);
      one.weights = one.weights.next();
      one.out += kPanel;
      if (one.add != nullptr) one.add += kPanel;
      one.columns -= kPanel;
    }
  }
}

template <class Weights>
void run_block(int rows, const Block<Weights>& b, Index panel_count) {
  switch (rows) {
    case 1: return rows_block<1>(b, panel_count);
    case 2: return rows_block<2>(b, panel_count);
    case 3: return rows_block<3>(b, panel_count);
    case 4: return rows_block<4>(b, panel_count);
    case 5: return rows_block<5>(b, panel_count);
    case 6: return rows_block<6>(b, panel_count);
    default: break;
  }
  if constexpr (kMaxRows > 6) {
    switch (rows) {
      case 7: return rows_block<7>(b, panel_count);
      case 8: return rows_block<8>(b, panel_count);
      case 9: return rows_block<9>(b, panel_count);
      case 10: return rows_block<10>(b, panel_count);
      case 11: return rows_block<11>(b, panel_count);
      default: return rows_block<12>(b, panel_count);
    }
  }
}

// Rows are cut into blocks of nearly equal size: `larger` of size + 1, then the others of size.
struct RowBlocks {
  Index count, size, larger;
  explicit RowBlocks(Index rows)
      : count((rows + kMaxRows - 1) / kMaxRows), size(rows / count), larger(rows % count) {}
  Index begin(Index i) const { return i * size + (i < larger ? i : larger); }
};

// What is multiplied with [outputs, inputs] weights.
struct Rows {
  const float* x;
  Index x_stride, count, inputs, outputs;
  const float* add;  // or null
  Index add_stride;
  float* out;
  Index out_stride;
};

// `source` gives the weights: `cost()` says what getting all of them costs, as parallel.h counts; `at_once(rows)` how
// many panels a block of rows wants together; `over(panel, count, begin, end, body)` calls body(begin, end, weights) on
// stretches of the inputs, in order.
template <class Source>
void run(const Rows& a, const Source& source) {
  if (a.count == 0 || a.outputs == 0) return;
  const Index inputs = a.inputs, panel_count = (a.outputs + kPanel - 1) / kPanel;
  const RowBlocks blocks(a.count);
  const double work = static_cast<double>(a.count) * static_cast<double>(inputs) * static_cast<double>(a.outputs);

  // The rows of a block side by side: [inputs][rows of the block]. A single row is that already.
  const float* x = a.x;
  if (a.count > 1) {
    float* const packed = scratch(0, static_cast<std::size_t>(a.count * inputs));
    parallel_for(blocks.count, static_cast<double>(a.count * inputs), [&](Index i) {
      constexpr Index kLine = 16;  // inputs at a time: a cache line of each row
      const Index begin = blocks.begin(i), rows = blocks.begin(i + 1) - begin;
      for (Index k = 0; k < inputs; k += kLine) {
        const Index here = k + kLine <= inputs ? kLine : inputs - k;
        float* const to = packed + begin * inputs + k * rows;
        for (Index r = 0; r < rows; ++r) {
          const float* const from = a.x + (begin + r) * a.x_stride + k;
          for (Index j = 0; j < here; ++j) to[j * rows + r] = from[j];
        }
      }
    });
    x = packed;
  }

  const Index at_once = source.at_once(static_cast<int>(blocks.size + (blocks.larger > 0)));
  const Index groups = (panel_count + at_once - 1) / at_once;
  // A share of the rows meets all panels in turn. Where that leaves too few pieces for the threads, shares are smaller.
  Index shares = (a.count + kShare - 1) / kShare;
  while (groups * shares < 4 * thread_count() && 2 * shares <= blocks.count) shares *= 2;
  const double read = source.cost(), cost = work / 8 > read ? work / 8 : read;

  const Index pass = blocks.count == 1 ? inputs : kInputs;  // one block meets a panel once: nothing to keep
  const double passes = static_cast<double>((inputs + pass - 1) / pass);
  for (Index k = 0; k < inputs; k += pass) {
    parallel_for(groups * shares, cost / passes, [&](Index piece) {
      const Index panel = piece % groups * at_once, share = piece / groups;
      const Index count = panel + at_once <= panel_count ? at_once : panel_count - panel;
      const Index first = blocks.count * share / shares, last = blocks.count * (share + 1) / shares;
      source.over(panel, count, k, k + pass < inputs ? k + pass : inputs, [&](Index begin, Index end, auto weights) {
        for (Index i = first; i < last; ++i) {
          const Index row = blocks.begin(i), rows = blocks.begin(i + 1) - row;
          Block<decltype(weights)> b{x + row * inputs + begin * rows, weights, end - begin, begin == 0, nullptr, 0,
                                     a.out + row * a.out_stride + panel * kPanel, a.out_stride,
                                     a.outputs - panel * kPanel};
          if (end == inputs && a.add != nullptr) b.add = a.add + row * a.add_stride + panel * kPanel;
          b.add_stride = a.add_stride;
          run_block(static_cast<int>(rows), b, count);
        }
      });
    });
  }
}

}  // namespace ramet::RAMET_ISA
