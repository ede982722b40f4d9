// A matrix of its own for every head: the two halves of a low-rank projection that multi-head latent attention absorbs.
#include "../ops.h"
#include "../parallel.h"
#include "linear.h"

namespace ramet::RAMET_ISA {

void head_linear(const HeadLinear& a) {
  const Index size = (a.outputs + kPanel - 1) / kPanel * kPanel * a.inputs * (a.half ? 2 : 4);
  const double work = static_cast<double>(a.heads * a.inputs) * static_cast<double>(a.outputs);
  parallel_for(a.heads, work * (1 + static_cast<double>(a.rows) / 8), [&](Index h) {
    const Packed weights{static_cast<const char*>(a.weights) + h * size, a.half, a.outputs, a.inputs};
    linear({a.x + h * a.slot, a.x_stride, weights, a.rows, nullptr, 0, a.out + h * a.outputs, a.heads * a.outputs});
  });
}

void coded_heads(const CodedHeads& a) {
  const Index inputs = a.w.inputs(), outputs = a.w.outputs();
  const double work = static_cast<double>(a.heads * inputs) * static_cast<double>(outputs);
  parallel_for(a.heads, work * (1 + static_cast<double>(a.rows) / 8), [&](Index h) {
    Coded weights = a.w;
    weights.first += h * a.share;
    coded_linear({a.x + h * a.slot, a.x_stride, weights, a.rows, nullptr, 0, a.out + h * outputs, a.heads * outputs});
  });
}

}  // namespace ramet::RAMET_ISA
