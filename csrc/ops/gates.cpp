// Elementwise gates.
#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

void swiglu(const Swiglu& a) {
  parallel_for(a.rows, 8.0 * static_cast<double>(a.rows * a.width), [&](Index r) {
    const float* const gate = a.x + r * a.x_stride;
    const float* const up = gate + a.width;
    float* const out = a.out + r * a.width;
    const Vec high = all(a.limit), low = all(-a.limit);
    over_columns(a.width, [&](Index c, int lanes) {
      const Vec factor = max(low, min(high, load_lanes(up + c, lanes)));
      store_lanes(out + c, silu(min(high, load_lanes(gate + c, lanes))) * factor, lanes);
    });
  });
}

void sigmoid_gate(const SigmoidGate& a) {
  const Index columns = a.heads * a.size;
  parallel_for(a.rows, 8.0 * static_cast<double>(a.rows * columns), [&](Index r) {
    for (Index h = 0; h < a.heads; ++h) {
      const float* const x = a.x + r * a.x_stride + h * a.size;
      const float* const gate = a.gate + r * a.gate_stride + (h + 1) * a.slot - a.size;
      float* const out = a.out + r * columns + h * a.size;
      over_columns(a.size, [&](Index c, int lanes) {
        store_lanes(out + c, load_lanes(x + c, lanes) * sigmoid(load_lanes(gate + c, lanes)), lanes);
      });
    }
  });
}

void gelu_tanh(const Gelu& a) {
  parallel_for(a.rows, 8.0 * static_cast<double>(a.rows * a.width), [&](Index r) {
    const float* const x = a.x + r * a.x_stride;
    float* const out = a.out + r * a.width;
    over_columns(a.width, [&](Index c, int lanes) {
      const Vec each = load_lanes(x + c, lanes);
      const Vec cubed = each * each * each;
      // 1 + tanh(y) is 2 sigmoid(2 y), y = sqrt(2 / pi) (x + 0.044715 x^3).
      store_lanes(out + c, each * sigmoid(fma(cubed, all(0.044715f), each) * all(1.59576912f)), lanes);
    });
  });
}

void add_gated(const AddGated& a) {
  parallel_for(a.rows, static_cast<double>(a.rows * a.width), [&](Index r) {
    const Vec gate = sigmoid(all(a.gate[r * a.gate_stride]));
    const float* const base = a.base + r * a.base_stride;
    const float* const x = a.x + r * a.x_stride;
    float* const out = a.out + r * a.width;
    over_columns(a.width, [&](Index c, int lanes) {
      store_lanes(out + c, fma(gate, load_lanes(x + c, lanes), load_lanes(base + c, lanes)), lanes);
    });
  });
}

}  // namespace ramet::RAMET_ISA
