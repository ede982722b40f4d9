// Mixture of experts: each expert run on the rows that chose it.
#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"
#include "linear.h"

namespace ramet::RAMET_ISA {

void experts(const Experts& a) {
  const Index assigned = a.rows * a.top_k, inner = 2 * a.intermediate;
  // Assignments in the order of their experts, and within one in the order of the rows. place[i] is where i went.
  std::int32_t* const first = a.first;
  std::int32_t* const place = a.order;
  std::memset(first, 0, static_cast<std::size_t>(a.experts + 1) * sizeof(std::int32_t));
  for (Index i = 0; i < assigned; ++i) ++first[a.chosen[i] + 1];
  for (Index e = 0; e < a.experts; ++e) first[e + 1] += first[e];
  for (Index i = 0; i < assigned; ++i) place[i] = first[a.chosen[i]]++;
  for (Index e = a.experts; e > 0; --e) first[e] = first[e - 1];
  first[0] = 0;

  for (Index i = 0; i < assigned; ++i)
    std::memcpy(a.gathered + place[i] * a.hidden, a.x + i / a.top_k * a.x_stride,
                static_cast<std::size_t>(a.hidden) * sizeof(float));

  const auto over_experts = [&](auto body) {
    for (Index e = 0; e < a.experts; ++e)
      if (first[e + 1] > first[e]) body(e, first[e], first[e + 1] - first[e]);
  };
  const auto packed = [&](const void* weights, Index outputs, Index inputs, const float* x, float* out) {
    const Index size = (outputs + kPanel - 1) / kPanel * kPanel * inputs * (a.half ? 2 : 4);
    over_experts([&](Index e, Index begin, Index rows) {
      linear({x + begin * inputs, inputs, {static_cast<const char*>(weights) + e * size, a.half, outputs, inputs}, rows,
              nullptr, 0, out + begin * outputs, outputs});
    });
  };
  const auto coded = [&](const Coded* weights, const float* x, float* out, Index columns) {
    over_experts([&](Index e, Index begin, Index rows) {
      const Index inputs = weights[e].columns;
      coded_linear({x + begin * inputs, inputs, weights[e], rows, nullptr, 0, out + begin * columns, columns});
    });
  };
  if (a.coded_gate != nullptr) {
    coded(a.coded_gate, a.gathered, a.gate_ups, inner);
    coded(a.coded_up, a.gathered, a.gate_ups + a.intermediate, inner);
  } else {
    packed(a.gate_up, inner, a.hidden, a.gathered, a.gate_ups);
  }
  swiglu({a.gate_ups, inner, assigned, a.intermediate, a.products, a.limit});
  if (a.coded_down != nullptr)
    coded(a.coded_down, a.products, a.results, a.hidden);
  else
    packed(a.down, a.hidden, a.intermediate, a.products, a.results);

  parallel_for(a.rows, static_cast<double>(assigned * a.hidden), [&](Index r) {
    float* const out = a.out + r * a.hidden;
    over_columns(a.hidden, [&](Index c, int lanes) {
      Vec sum = zero();
      for (Index i = r * a.top_k; i < (r + 1) * a.top_k; ++i)
        sum = fma(all(a.weights[i]), load_lanes(a.results + place[i] * a.hidden + c, lanes), sum);
      store_lanes(out + c, sum, lanes);
    });
  });
}

}  // namespace ramet::RAMET_ISA
