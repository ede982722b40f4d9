// Binds the ops of the memory: lists of postings, and vectors.
#include "bind.h"

namespace ramet {

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
                            Address bounds, bool scoped, bool one_kind, Index terms, Address weights, std::int64_t turns,
                            double mean_length, double k1, double b, Index k, Address rows, Address scores) {
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

}  // namespace ramet
