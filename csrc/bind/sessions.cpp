// Binds the ops that read and write the states of sessions, or look from row to row.
#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bind.h"

namespace ramet {

namespace {

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

}  // namespace

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

}  // namespace ramet
