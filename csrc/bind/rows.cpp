// Binds the ops that work on each row alone.
#include "../pack.h"
#include "bind.h"

namespace ramet {

void bind_rows(nb::module_& m) {
  m.def("rms_norm", [](Address x, Index x_stride, Address weight, float eps, bool zero_centred, Index rows,
                       Index groups, Index size, Address out) {
    nb::gil_scoped_release released;
    ops().rms_norm({floats(x), x_stride, nullptr, 0, floats(weight), eps, zero_centred, rows, groups, size,
                    floats(out)});
  });
  m.def("gated_rms_norm", [](Address x, Index x_stride, Address z, Index z_stride, Address weight, float eps,
                             Index rows, Index groups, Index size, Address out) {
    nb::gil_scoped_release released;
    ops().gated_rms_norm({floats(x), x_stride, floats(z), z_stride, floats(weight), eps, false, rows, groups, size,
                          floats(out)});
  });
  m.def("layer_norm", [](Address x, Index x_stride, Address weight, Address bias, float eps, Index rows, Index size,
                         Address out) {
    nb::gil_scoped_release released;
    ops().layer_norm({floats(x), x_stride, floats(weight), floats(bias), eps, rows, size, floats(out)});
  });
  m.def("rope_table", [](Address positions, Address frequencies, Index count, Index half, Address table) {
    nb::gil_scoped_release released;
    rope_table(longs(positions), floats(frequencies), count, half, floats(table));
  });
  m.def("norm_rope", [](Address x, Index x_stride, Address weight, float eps, bool zero_centred, Address table,
                        Index rotary, Index rows, Index heads, Index size, Index slot, Address out) {
    nb::gil_scoped_release released;
    ops().norm_rope({floats(x), x_stride, floats(weight), eps, zero_centred, floats(table), rotary, rows, heads, size,
                     slot, floats(out)});
  });
  m.def("rope", [](Address x, Index x_stride, Address table, Index rotary, Index rows, Index heads, Index size,
                   Index start, bool interleaved, bool inverse, Address out) {
    nb::gil_scoped_release released;
    ops().rope({floats(x), x_stride, floats(table), rotary, rows, heads, size, start, interleaved, inverse,
                floats(out)});
  });
  m.def("swiglu", [](Address x, Index x_stride, Index rows, Index width, float limit, Address out) {
    nb::gil_scoped_release released;
    ops().swiglu({floats(x), x_stride, rows, width, floats(out), limit});
  });
  m.def("sigmoid_gate", [](Address x, Index x_stride, Address gate, Index gate_stride, Index rows, Index heads,
                           Index size, Index slot, Address out) {
    nb::gil_scoped_release released;
    ops().sigmoid_gate({floats(x), x_stride, floats(gate), gate_stride, rows, heads, size, slot, floats(out)});
  });
  m.def("gelu_tanh", [](Address x, Index x_stride, Index rows, Index width, Address out) {
    nb::gil_scoped_release released;
    ops().gelu_tanh({floats(x), x_stride, rows, width, floats(out)});
  });
  m.def("add_gated", [](Address base, Index base_stride, Address x, Index x_stride, Address gate, Index gate_stride,
                        Index rows, Index width, Address out) {
    nb::gil_scoped_release released;
    ops().add_gated({floats(base), base_stride, floats(x), x_stride, floats(gate), gate_stride, rows, width,
                     floats(out)});
  });
  m.def("hyper_weights", [](Address streams, Index streams_stride, Address mixes, Index mixes_stride, Address scale,
                            Address base, float norm_eps, float eps, Index rows, Index count, Index hidden,
                            Index iterations, bool collapse_only, Address out) {
    nb::gil_scoped_release released;
    ops().hyper_weights({floats(streams), streams_stride, floats(mixes), mixes_stride, floats(scale), floats(base),
                         norm_eps, eps, rows, count, hidden, iterations, collapse_only, floats(out)});
  });
  m.def("hyper_collapse", [](Address streams, Index streams_stride, Address weights, Index weights_stride, Index rows,
                             Index count, Index hidden, Address out) {
    nb::gil_scoped_release released;
    ops().hyper_collapse({floats(streams), streams_stride, floats(weights), weights_stride, rows, count, hidden,
                          floats(out)});
  });
  m.def("hyper_expand", [](Address streams, Index streams_stride, Address y, Index y_stride, Address weights,
                           Index weights_stride, Index rows, Index count, Index hidden, Address out) {
    nb::gil_scoped_release released;
    ops().hyper_expand({floats(streams), streams_stride, floats(y), y_stride, floats(weights), weights_stride, rows,
                        count, hidden, floats(out)});
  });
}

}  // namespace ramet
