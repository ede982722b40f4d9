// The Python module ramet._ramet. It takes addresses and sizes: `ramet.kernels` checks what it passes.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind/bind.h"
#include "parallel.h"

using namespace ramet;

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
  bind_memory(m);
}
