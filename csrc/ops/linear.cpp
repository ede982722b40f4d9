// y = x @ w.T: an outer-product kernel. Every output is summed over the inputs in order, one fused multiply-add each,
// in its own lane, so no blocking below can change a bit.
#include "linear.h"

#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {
namespace {

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

template <class Weight>
struct Block {
  const float* x;        // [inputs][R], the rows side by side
  const Weight* w;       // the first panel, at the first input of this pass
  Index panel_stride;    // elements between panels
  Index inputs;
  bool begins;           // the sums start here; otherwise they continue from out
  const float* add;      // added when the sums are complete; or null
  Index add_stride;
  float* out;
  Index out_stride;
  Index columns;         // outputs left from the first panel on
};

// R rows by P panels by V vectors (of each panel, those from Slice * V on).
template <int R, int P, int V, int Slice, class Weight>
void block(const Block<Weight>& b) {
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
  const float* x = b.x;
  const Weight* w = b.w;
  for (Index i = 0; i < b.inputs; ++i, x += R, w += kPanel) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      Vec weights[V];
      load_weights<V, Slice>(w + p * b.panel_stride, weights);
      __builtin_prefetch(w + p * b.panel_stride + kAhead * kPanel);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec each = all(x[r]);
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) sums[r][p][v] = fma(each, weights[v], sums[r][p][v]);
      }
    }
  }
  over_outputs([&](int p, int v, Index column, int lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec sum = sums[r][p][v];
      if (b.add != nullptr) sum = load_lanes(b.add + r * b.add_stride + column, lanes) + sum;
      store_lanes(b.out + r * b.out_stride + column, sum, lanes);
    }
  });
}

template <int R, int P, class Weight>
void panels(const Block<Weight>& b) {
  constexpr int registers = Vec::width == 16 ? 24 : 12;  // for sums; the rest holds weights and an input
  if constexpr (R * P * kPanelVecs <= registers) {
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

template <int R, class Weight>
void rows_block(const Block<Weight>& b, Index panel_count) {
  constexpr int P = panels_at_once(R);
  if (panel_count == P) return panels<R, P>(b);
  Block<Weight> one = b;
  for (Index p = 0; p < panel_count; ++p) {
    panels<R, 1>(one);
    one.w += b.panel_stride;
    one.out += kPanel;
    if (one.add != nullptr) one.add += kPanel;
    one.columns -= kPanel;
  }
}

template <class Weight>
void run_block(int rows, const Block<Weight>& b, Index panel_count) {
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

template <class Weight>
void run(const Linear& a) {
  const Index inputs = a.w.inputs, outputs = a.w.outputs;
  const Index panel_count = (outputs + kPanel - 1) / kPanel, panel_stride = inputs * kPanel;
  const RowBlocks blocks(a.rows);
  const double work = static_cast<double>(a.rows) * static_cast<double>(inputs) * static_cast<double>(outputs);

  // The rows of a block side by side: [inputs][rows of the block]. A single row is that already.
  const float* x = a.x;
  if (a.rows > 1) {
    float* const packed = scratch(0, static_cast<std::size_t>(a.rows * inputs));
    parallel_for(blocks.count, static_cast<double>(a.rows * inputs), [&](Index i) {
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

  const Index at_once = panels_at_once(static_cast<int>(blocks.size + (blocks.larger > 0)));
  const Index groups = (panel_count + at_once - 1) / at_once;
  // A share of the rows meets all panels in turn. Where that leaves too few pieces for the threads, shares are smaller.
  Index shares = (a.rows + kShare - 1) / kShare;
  while (groups * shares < 4 * thread_count() && 2 * shares <= blocks.count) shares *= 2;
  const double read = static_cast<double>(inputs * outputs) * static_cast<double>(sizeof(Weight)) / 4;
  const double cost = work / 8 > read ? work / 8 : read;

  const Index pass = blocks.count == 1 ? inputs : kInputs;  // one block meets a panel once: nothing to keep
  const double passes = static_cast<double>((inputs + pass - 1) / pass);
  for (Index k = 0; k < inputs; k += pass) {
    const bool ends = k + pass >= inputs;
    parallel_for(groups * shares, cost / passes, [&](Index piece) {
      const Index panel = piece % groups * at_once, share = piece / groups;
      const Index first = blocks.count * share / shares, last = blocks.count * (share + 1) / shares;
      for (Index i = first; i < last; ++i) {
        const Index row = blocks.begin(i), rows = blocks.begin(i + 1) - row;
        Block<Weight> b;
        b.x = x + row * inputs + k * rows;
        b.w = static_cast<const Weight*>(a.w.weights) + panel * panel_stride + k * kPanel;
        b.panel_stride = panel_stride;
        b.inputs = ends ? inputs - k : pass;
        b.begins = k == 0;
        b.add = ends && a.add != nullptr ? a.add + row * a.add_stride + panel * kPanel : nullptr;
        b.add_stride = a.add_stride;
        b.out = a.out + row * a.out_stride + panel * kPanel;
        b.out_stride = a.out_stride;
        b.columns = outputs - panel * kPanel;
        run_block(static_cast<int>(rows), b, panel + at_once <= panel_count ? at_once : panel_count - panel);
      }
    });
  }
}

}  // namespace

void linear(const Linear& a) {
  if (a.rows == 0 || a.w.outputs == 0) return;
  if (a.w.half)
    run<std::uint16_t>(a);
  else
    run<float>(a);
}

}  // namespace ramet::RAMET_ISA
