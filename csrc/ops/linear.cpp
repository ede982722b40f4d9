// Products with packed weights.
#include "linear.h"

#include "blocks.h"

namespace ramet::RAMET_ISA {
namespace {

template <class Weight>
struct FromMemory {
  const Packed& w;

  double cost() const {
    return static_cast<double>(w.inputs * w.outputs) * static_cast<double>(sizeof(Weight)) / 4;
  }
  static Index at_once(int rows) { return panels_at_once(rows); }
  template <class Body>
  void over(Index panel, Index, Index begin, Index end, Body body) const {
    const Index stride = w.inputs * kPanel;
    body(begin, end,
         Panels<Weight>{static_cast<const Weight*>(w.weights) + panel * stride + begin * kPanel, stride});
  }
};

}  // namespace

void linear(const Linear& a) {
  const Rows rows{a.x, a.x_stride, a.rows, a.w.inputs, a.w.outputs, a.add, a.add_stride, a.out, a.out_stride};
  if (a.w.half)
    run(rows, FromMemory<std::uint16_t>{a.w});
  else
    run(rows, FromMemory<float>{a.w});
}

}  // namespace ramet::RAMET_ISA
