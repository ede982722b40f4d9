#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_ramet, m) { m.doc() = "Ramet's compiled CPU kernels."; }
