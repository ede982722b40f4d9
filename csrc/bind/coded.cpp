// Binds the ops that multiply by weights as they lie in files.
#include <nanobind/stl/string.h>

#include <string>
#include <vector>

#include "bind.h"

namespace ramet {

namespace {

// Coded matrices that an op is given together.
class CodedMatrices {
 public:
  void append(const std::string& coding, Address codes, const std::string& scale, Address scales, Index rows,
              Index columns, Index block_rows, Index block_columns) {
    static const std::vector<std::string> codings{"fp8", "fp4", "int4", "bf16", "f32"};
    static const std::vector<std::string> kinds{"", "f32", "bf16", "f16", "e8m0"};
    constexpr Index per_word[] = {4, 8, 8, 2, 1};
    const std::size_t c = find(codings, coding), s = find(kinds, scale);
    // Four-bit numbers fill bytes or, of int4, words.
    const Index bytes = coding == "fp4" ? (columns + 1) / 2
                        : coding == "int4" ? (columns + 7) / 8 * 4
                                           : columns * 4 / per_word[c];
    all.push_back({reinterpret_cast<const std::uint8_t*>(codes), reinterpret_cast<const std::uint8_t*>(scales),
                   static_cast<Coding>(c), static_cast<Scale>(s), bytes,
                   (columns + block_columns - 1) / block_columns, block_rows, block_columns, 0, rows, columns, false});
  }
  std::vector<Coded> all;

 private:
  static std::size_t find(const std::vector<std::string>& names, const std::string& name) {
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == name) return i;
    throw std::invalid_argument("there is no coding '" + name + "'");
  }
};

}  // namespace

void bind_coded(nb::module_& m) {
  nb::class_<CodedMatrices>(m, "CodedMatrices").def(nb::init<>()).def("append", &CodedMatrices::append);
  // The matrices' outputs side by side.
  m.def("coded_linear", [](Address x, Index x_stride, const CodedMatrices& w, Index rows, Index outputs, Address add,
                           Index add_stride, Address out) {
    nb::gil_scoped_release released;
    Index at = 0;
    for (const Coded& part : w.all) {
      const float* const added = add == 0 ? nullptr : floats(add) + at;
      ops().coded_linear({floats(x), x_stride, part, rows, added, add_stride, floats(out) + at, outputs});
      at += part.rows;
    }
  });
  m.def("coded_heads", [](Address x, Index x_stride, Index slot, const CodedMatrices& w, Index heads, Index first,
                          Index size, bool transposed, Index rows, Address out) {
    nb::gil_scoped_release released;
    Coded each = w.all.front();
    const Index share = each.rows / heads;
    each.first = first, each.rows = size, each.transposed = transposed;
    ops().coded_heads({floats(x), x_stride, slot, each, share, heads, rows, floats(out)});
  });
  m.def("coded_experts", [](Address x, Index x_stride, Address chosen, Address weights, const CodedMatrices& gate,
                            const CodedMatrices& up, const CodedMatrices& down, Index rows, Index top_k, float limit,
                            Address out) {
    Experts a{};
    a.coded_gate = gate.all.data(), a.coded_up = up.all.data(), a.coded_down = down.all.data();
    a.experts = static_cast<Index>(down.all.size()), a.hidden = down.all[0].rows, a.intermediate = down.all[0].columns;
    a.limit = limit;
    run_experts(a, x, x_stride, chosen, weights, rows, top_k, out);
  });
}

}  // namespace ramet
