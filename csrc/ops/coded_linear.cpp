// Products with matrices in the codes of their files. A panel's weights are decoded as the sums need them: for a few
// rows in registers, for many into scratch memory. They are the weights that `linear` would be given, summed as there.
#include "blocks.h"
#include "coded.h"
#include "linear.h"

namespace ramet::RAMET_ISA {
namespace {

struct Scratch {
  CodedScratch coded;
  float tile[kPanel * kPanel];
};
constexpr Index kDecoded = kStretch * kPanel;  // floats of a panel's stretch

template <Coding C>
struct FromFile {
  const Coded& w;
  bool few;  // rows: no more than Turned takes

  double cost() const { return static_cast<double>(w.rows) * static_cast<double>(w.columns); }  // of decoding
  Index at_once(int rows) const { return few ? 1 : panels_at_once(rows); }

  template <class Body>
  void over(Index panel, Index count, Index begin, Index end, Body body) const {
    constexpr Index kFloats = sizeof(Scratch) / sizeof(float);
    float* const memory = scratch(1, static_cast<std::size_t>(kFloats + count * kDecoded));
    Scratch& s = *reinterpret_cast<Scratch*>(memory);
    float* const decoded = memory + kFloats;
    for (Index k = begin; k < end; k += kStretch) {
      const Index to = k + kStretch < end ? k + kStretch : end;
      if (few) {
        const CodedRows<C> rows(w, w.first + panel * kPanel, w.rows - panel * kPanel);
        rows.read(k, to, s.coded, [&](auto weights) { body(k, to, weights); });
      } else {
        for (Index p = 0; p < count; ++p) decode(panel + p, k, to, s, decoded + p * kDecoded);
        body(k, to, Panels<float, true>{decoded, kDecoded});
      }
    }
  }

 private:
  // Inputs [begin, end) of a panel of outputs: [end - begin][kPanel].
  void decode(Index panel, Index begin, Index end, Scratch& s, float* to) const {
    if (!w.transposed)
      return CodedRows<C>(w, w.first + panel * kPanel, w.rows - panel * kPanel).decode(begin, end, s.coded, to);
    const Index column = panel * kPanel, columns = column + kPanel < w.columns ? column + kPanel : w.columns;
    if (columns - column < kPanel) std::memset(s.tile, 0, sizeof s.tile);
    for (Index k = begin; k < end; k += kPanel, to += kPanel * kPanel) {
      CodedRows<C>(w, w.first + k, w.rows - k).decode(column, columns, s.coded, s.tile);
      for (int r = 0; r < kPanel; r += Vec::width)
        for (int c = 0; c < kPanel; c += Vec::width) {
          Bits turned[Vec::width];
          transpose(s.tile + c * kPanel + r, kPanel * sizeof(float), turned);
          for (int i = 0; i < Vec::width; ++i) store_bits(to + (r + i) * kPanel + c, turned[i]);
        }
    }
  }
};

template <Coding C>
void run_coded(const CodedLinear& a) {
  const Rows rows{a.x, a.x_stride, a.rows, a.w.inputs(), a.w.outputs(), a.add, a.add_stride, a.out, a.out_stride};
  run(rows, FromFile<C>{a.w, a.rows <= Turned<2>::most_rows && !a.w.transposed});
}

}  // namespace

void coded_linear(const CodedLinear& a) {
  switch (a.w.coding) {
    case Coding::fp8: return run_coded<Coding::fp8>(a);
    case Coding::fp4: return run_coded<Coding::fp4>(a);
    case Coding::int4: return run_coded<Coding::int4>(a);
    case Coding::bf16: return run_coded<Coding::bf16>(a);
    case Coding::f32: return run_coded<Coding::f32>(a);
  }
}

}  // namespace ramet::RAMET_ISA
