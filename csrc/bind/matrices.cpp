// Binds the ops that multiply by packed weights, and those that choose among experts.
#include <vector>

#include "../pack.h"
#include "bind.h"

namespace ramet {

void run_experts(Experts& a, Address x, Index x_stride, Address chosen, Address weights, Index rows, Index top_k,
                 Address out) {
  const Index assigned = rows * top_k;
  for (Index i = 0; i < assigned; ++i)
    require(ints(chosen)[i] >= 0 && ints(chosen)[i] < a.experts, "experts: a row chose an expert that does not exist");
  nb::gil_scoped_release released;
  const auto size = [](Index n) { return static_cast<std::size_t>(n); };
  std::vector<float> gathered(size(assigned * a.hidden)), gate_ups(size(assigned * 2 * a.intermediate)),
      products(size(assigned * a.intermediate)), results(size(assigned * a.hidden));
  std::vector<std::int32_t> order(size(assigned)), first(size(a.experts + 1));
  a.x = floats(x), a.x_stride = x_stride, a.chosen = ints(chosen), a.weights = floats(weights);
  a.rows = rows, a.top_k = top_k, a.out = floats(out);
  a.gathered = gathered.data(), a.gate_ups = gate_ups.data(), a.products = products.data(), a.results = results.data();
  a.order = order.data(), a.first = first.data();
  ops().experts(a);
}

void bind_matrices(nb::module_& m) {
  m.attr("PANEL") = kPanel;
  m.def("pack", [](Address weight, Address packed, Index outputs, Index inputs, bool half) {
    nb::gil_scoped_release released;
    pack(memory(weight), memory(packed), outputs, inputs, half);
  });
  m.def("linear", [](Address x, Index x_stride, Address packed, bool half, Index rows, Index inputs, Index outputs,
                     Address add, Index add_stride, Address out) {
    nb::gil_scoped_release released;
    ops().linear({floats(x), x_stride, {memory(packed), half, outputs, inputs}, rows, floats(add), add_stride,
                  floats(out), outputs});
  });
  m.def("head_linear", [](Address x, Index x_stride, Index slot, Address packed, bool half, Index heads, Index inputs,
                          Index outputs, Index rows, Address out) {
    nb::gil_scoped_release released;
    ops().head_linear({floats(x), x_stride, slot, memory(packed), half, heads, inputs, outputs, rows, floats(out)});
  });
  m.def("embed", [](Address weight, bool half, Index rows, Index width, Address tokens, Index count, Address out) {
    require(embed(memory(weight), half, rows, width, longs(tokens), count, floats(out)),
            "embed: a token is outside the vocabulary");
  });
  m.def("embed_packed",
        [](Address packed, bool half, Index outputs, Index inputs, Address tokens, Index count, Address out) {
          require(embed_packed({memory(packed), half, outputs, inputs}, longs(tokens), count, floats(out)),
                  "embed: a token is outside the vocabulary");
        });
  m.def("route", [](Address logits, Index stride, Index rows, Index experts, Index top_k, Address chosen,
                    Address weights) {
    nb::gil_scoped_release released;
    ops().route({floats(logits), stride, rows, experts, top_k, ints(chosen), floats(weights)});
  });
  m.def("route_by_score", [](Address logits, Index stride, Address bias, Index rows, Index experts, Index top_k,
                             Index groups, Index groups_kept, bool sqrt_softplus, bool normalise, float scale,
                             Address chosen, Address weights) {
    nb::gil_scoped_release released;
    std::vector<float> ranked(static_cast<std::size_t>(rows * (experts + groups)));
    std::vector<std::int32_t> order(static_cast<std::size_t>(rows * groups));
    ops().route_by_score({floats(logits), stride, floats(bias), rows, experts, top_k, groups, groups_kept,
                          sqrt_softplus ? Score::sqrt_softplus : Score::sigmoid, normalise, scale, ranked.data(),
                          order.data(), ints(chosen), floats(weights)});
  });
  m.def("experts", [](Address x, Index x_stride, Address chosen, Address weights, Address gate_up, Address down,
                      bool half, Index rows, Index top_k, Index experts, Index hidden, Index intermediate,
                      float limit, Address out) {
    Experts a{};
    a.gate_up = memory(gate_up), a.down = memory(down), a.half = half;
    a.experts = experts, a.hidden = hidden, a.intermediate = intermediate, a.limit = limit;
    run_experts(a, x, x_stride, chosen, weights, rows, top_k, out);
  });
}

}  // namespace ramet
