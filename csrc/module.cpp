// The Python module ramet._ramet. It takes addresses and sizes: `ramet.kernels` checks what it passes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <vector>

#include "isa.h"
#include "ops.h"
#include "pack.h"
#include "parallel.h"

namespace nb = nanobind;
using namespace ramet;

namespace {

using Address = std::uintptr_t;

float* floats(Address at) { return reinterpret_cast<float*>(at); }
std::int32_t* ints(Address at) { return reinterpret_cast<std::int32_t*>(at); }
const std::int64_t* longs(Address at) { return reinterpret_cast<const std::int64_t*>(at); }
void* memory(Address at) { return reinterpret_cast<void*>(at); }

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

class Spans {
 public:
  Spans(const std::vector<Index>& lengths, std::vector<Index> positions,
        const std::vector<std::vector<Address>>& pages, Index page_elements, bool half,
        const std::vector<Address>& states, Index state_elements)
      : positions_(std::move(positions)), page_elements_(page_elements), state_elements_(state_elements), half_(half) {
    const std::size_t count = lengths.size();
    require(positions_.size() == count, "spans: as many positions as lengths are needed");
    require(pages.empty() || pages.size() == count, "spans: as many lists of pages as lengths are needed");
    require(states.empty() || states.size() == count, "spans: as many states as lengths are needed");
    offsets_.push_back(0);
    for (std::size_t s = 0; s < count; ++s) {
      require(lengths[s] >= 1, "spans: every length must be at least 1");
      require(positions_[s] >= 0, "spans: positions must not be negative");
      offsets_.push_back(offsets_.back() + lengths[s]);
    }
    for (std::size_t s = 0; s < pages.size(); ++s) {
      require((positions_[s] + lengths[s] + kPageTokens - 1) / kPageTokens <= static_cast<Index>(pages[s].size()),
              "spans: too few pages for position + length tokens");
      first_page_.push_back(static_cast<Index>(pages_.size()));
      for (const Address page : pages[s]) pages_.push_back(memory(page));
    }
    for (const Address state : states) states_.push_back(floats(state));
  }

  SpanView with_states(Index offset, Index elements) const {
    require(offsets_.size() == 1 || !states_.empty(), "spans: this op needs states");
    require(offset >= 0 && elements <= state_elements_ - offset, "the state does not fit into the state buffer");
    return view();
  }
  // For ops on compressed entries, of which a page holds `slots` of `size` elements at `offset`.
  SpanView with_entries(Index offset, Index ratio, Index size) const {
    require(ratio >= 1 && (kPageTokens % ratio == 0 || ratio % kPageTokens == 0),
            "the tokens of an entry must divide those of a page, or be a multiple of them");
    return with_pages(offset, offset, (ratio < kPageTokens ? kPageTokens / ratio : 1) * size);
  }
  SpanView with_pages(Index k_offset, Index v_offset, Index elements) const {
    require(offsets_.size() == 1 || !first_page_.empty(), "spans: this op needs pages");
    require(k_offset >= 0 && elements <= page_elements_ - k_offset, "the keys do not fit into a page");
    require(v_offset >= 0 && elements <= page_elements_ - v_offset, "the values do not fit into a page");
    return view();
  }

 private:
  SpanView view() const {
    return {static_cast<Index>(positions_.size()), offsets_.data(), positions_.data(), states_.data(), pages_.data(),
            half_, first_page_.data()};
  }

  std::vector<Index> offsets_, positions_, first_page_;
  std::vector<void*> pages_;
  std::vector<float*> states_;
  Index page_elements_, state_elements_;
  bool half_;
};

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
}

void bind_sessions(nb::module_& m) {
  m.attr("PAGE_TOKENS") = kPageTokens;
  nb::class_<Spans>(m, "Spans")
      .def(nb::init<const std::vector<Index>&, std::vector<Index>, const std::vector<std::vector<Address>>&, Index,
                    bool, const std::vector<Address>&, Index>());
  m.def("causal_conv", [](Address x, Index x_stride, Address weight, Index taps, Index width, const Spans& spans,
                          Index state_offset, Address out) {
    const SpanView view = spans.with_states(state_offset, (taps - 1) * width);
    nb::gil_scoped_release released;
    ops().causal_conv({floats(x), x_stride, floats(weight), taps, width, view, state_offset, floats(out)});
  });
  m.def("delta_rule", [](Address qkv, Index qkv_stride, Address a, Index a_stride, Address b, Index b_stride,
                         Address A_log, Address dt_bias, Index k_heads, Index v_heads, Index k_dim, Index v_dim,
                         const Spans& spans, Index state_offset, Address out) {
    const SpanView view = spans.with_states(state_offset, v_heads * k_dim * v_dim);
    nb::gil_scoped_release released;
    ops().delta_rule({floats(qkv), qkv_stride, floats(a), a_stride, floats(b), b_stride, floats(A_log),
                      floats(dt_bias), k_heads, v_heads, k_dim, v_dim, view, state_offset, floats(out)});
  });
  m.def("attention", [](Address q, Index q_stride, Address k, Index k_stride, Address v, Index v_stride, Index heads,
                        Index kv_heads, Index head_dim, float scale, const Spans& spans, Index k_offset,
                        Index v_offset, Address out) {
    const SpanView view = spans.with_pages(k_offset, v_offset, kv_heads * head_dim * kPageTokens);
    nb::gil_scoped_release released;
    ops().attention({floats(q), q_stride, floats(k), k_stride, floats(v), v_stride, heads, kv_heads, head_dim, scale,
                     view, k_offset, v_offset, floats(out)});
  });
  m.def("segment_attention", [](Address q, Index q_stride, Address k, Index k_stride, Address v, Index v_stride,
                                Index heads, Index head_dim, float scale, const std::vector<Index>& lengths,
                                Address out) {
    std::vector<Index> offsets{0};
    for (const Index length : lengths) {
      require(length >= 1, "segment_attention: every length must be at least 1");
      offsets.push_back(offsets.back() + length);
    }
    nb::gil_scoped_release released;
    ops().segment_attention({floats(q), q_stride, floats(k), k_stride, floats(v), v_stride, heads, head_dim, scale,
                             static_cast<Index>(lengths.size()), offsets.data(), floats(out)});
  });
  m.def("latent_attention", [](Address q, Index q_stride, Address q_rope, Index q_rope_stride, Index q_rope_slot,
                               Address latent, Index latent_stride, Address rope_key, Index rope_key_stride,
                               Index heads, Index latent_size, Index rope_size, float scale, Address chosen,
                               Index top_k, const Spans& spans, Index offset, Address out) {
    const SpanView view = spans.with_pages(offset, offset, (latent_size + rope_size) * kPageTokens);
    nb::gil_scoped_release released;
    ops().latent_attention({floats(q), q_stride, floats(q_rope), q_rope_stride, q_rope_slot, floats(latent),
                            latent_stride, floats(rope_key), rope_key_stride, heads, latent_size, rope_size, scale,
                            ints(chosen), top_k, view, offset, floats(out)});
  });
  m.def("indexer", [](Address q, Index q_stride, Address k, Index k_stride, Address weights, Index weights_stride,
                      Index heads, Index head_dim, Index top_k, const Spans& spans, Index offset, Address chosen) {
    const SpanView view = spans.with_pages(offset, offset, head_dim * kPageTokens);
    nb::gil_scoped_release released;
    ops().indexer({floats(q), q_stride, floats(k), k_stride, floats(weights), weights_stride, heads, head_dim, top_k,
                   view, offset, ints(chosen)});
  });
}

void bind_hyper_connections(nb::module_& m) {
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

void bind_entries(nb::module_& m) {
  m.def("weigh_experts", [](Address logits, Index stride, Index rows, Index experts, Index top_k, Address chosen,
                            float scale, Address weights) {
    for (Index i = 0; i < rows * top_k; ++i)
      require(ints(chosen)[i] >= 0 && ints(chosen)[i] < experts, "experts: a row chose an expert that does not exist");
    nb::gil_scoped_release released;
    ops().weigh_experts({floats(logits), stride, rows, experts, top_k, ints(chosen), scale, floats(weights)});
  });
  m.def("compress", [](Address kv, Index kv_stride, Address gate, Index gate_stride, Address bias, Address norm,
                       float eps, Address table, Index rotary, Index ratio, Index series, Index size,
                       const Spans& spans, Index state_offset, Index entry_offset) {
    (void)spans.with_states(state_offset, series * 3 * size);
    const SpanView view = spans.with_entries(entry_offset, ratio, size);
    nb::gil_scoped_release released;
    ops().compress({floats(kv), kv_stride, floats(gate), gate_stride, floats(bias), floats(norm), eps, floats(table),
                    rotary, ratio, series, size, view, state_offset, entry_offset});
  });
  m.def("select_entries", [](Address q, Index q_stride, Address weights, Index weights_stride, Index heads, Index size,
                             Index ratio, Index top_k, float scale, const Spans& spans, Index entry_offset,
                             Address chosen) {
    const SpanView view = spans.with_entries(entry_offset, ratio, size);
    nb::gil_scoped_release released;
    ops().select_entries({floats(q), q_stride, floats(weights), weights_stride, heads, size, ratio, top_k, scale, view,
                          entry_offset, ints(chosen)});
  });
  m.def("entry_attention", [](Address q, Index q_stride, Address kv, Index kv_stride, Address sinks, Index heads,
                              Index size, float scale, Index window, Index ratio, Address chosen, Index top_k,
                              const Spans& spans, Index window_offset, Index entry_offset, Address out) {
    SpanView view = spans.with_states(window_offset, window * size);
    if (ratio > 0) view = spans.with_entries(entry_offset, ratio, size);
    nb::gil_scoped_release released;
    ops().entry_attention({floats(q), q_stride, floats(kv), kv_stride, floats(sinks), heads, size, scale, window,
                           ratio, ints(chosen), top_k, view, window_offset, entry_offset, floats(out)});
  });
}

void bind_memory(nb::module_& m) {
  m.attr("POSTING_ROWS") = kPostingRows;
  m.attr("POSTING_BOUNDS") = kPostingBounds;
  m.def("bound_postings", [](Address postings, Address sizes, Index pieces, Address bounds) {
    ops().bound_postings({reinterpret_cast<const std::uint32_t*>(postings), longs(sizes), pieces,
                          reinterpret_cast<std::uint32_t*>(bounds)});
  });
  m.def("look_up_postings", [](Index lists, Address first, Address starts, Address postings, Address sizes, Index count,
                               Address rows, Address frequencies, Address lengths) {
    nb::gil_scoped_release released;
    ops().look_up_postings({lists, longs(first), longs(starts),
                            reinterpret_cast<const std::uint32_t* const*>(postings), longs(sizes), count, longs(rows),
                            reinterpret_cast<std::int32_t*>(frequencies), reinterpret_cast<std::int32_t*>(lengths)});
  });
  m.def("rank_postings", [](Index pieces, Address starts, Address lists, Address postings, Address sizes,
                            Address bounds, bool scoped, bool one_kind, Index terms, Address weights, std::int64_t turns, double mean_length,
                            double k1, double b, Index k, Address rows, Address scores) {
    nb::gil_scoped_release released;
    return ops().rank_postings({pieces, longs(starts), longs(lists),
                                reinterpret_cast<const std::uint32_t* const*>(postings), longs(sizes),
                                reinterpret_cast<const std::uint32_t*>(bounds), scoped, one_kind,
                                terms, reinterpret_cast<const double*>(weights), turns, mean_length, k1, b, k,
                                reinterpret_cast<std::int64_t*>(rows), reinterpret_cast<double*>(scores)});
  });
  m.def("near_codes", [](Address codes, Address marks, Index words, Address among, Index count, Address code,
                         Address question, Index dimensions, int mark, Index looked, Index most, Address rows) {
    nb::gil_scoped_release released;
    return ops().near_codes({reinterpret_cast<const std::uint64_t*>(codes),
                             reinterpret_cast<const std::uint8_t*>(marks), words, longs(among), count,
                             reinterpret_cast<const std::uint64_t*>(code), floats(question), dimensions,
                             static_cast<std::uint8_t>(mark), looked, most, reinterpret_cast<std::int64_t*>(rows)});
  });
  m.def("unit_vectors", [](Address halves, Address from, Index count, Index dimensions, Address out) {
    nb::gil_scoped_release released;
    ops().unit_vectors({reinterpret_cast<const std::uint16_t*>(halves), longs(from), count, dimensions, floats(out)});
  });
}

}  // namespace

NB_MODULE(_ramet, m) {
  m.doc() = "Ramet's compiled CPU kernels. Private: use ramet.kernels and ramet.memory.";
  m.def("build_id", &build_id);
  m.def("isa", &isa);
  m.def("available_isas", &available_isas);
  m.def("set_isa", &set_isa);
  m.def("threads", &thread_count);
  m.def("set_threads", [](int count) {
    require(count >= 1, "the number of threads must be at least 1");
    set_thread_count(count);
  });
  bind_matrices(m);
  bind_coded(m);
  bind_rows(m);
  bind_sessions(m);
  bind_hyper_connections(m);
  bind_entries(m);
  bind_memory(m);
}
