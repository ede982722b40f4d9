// What the parts of the Python module share. Python passes addresses and sizes, which `ramet.kernels` has checked.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <stdexcept>

#include "../isa.h"
#include "../ops.h"

namespace nb = nanobind;

namespace ramet {

using Address = std::uintptr_t;

inline float* floats(Address at) { return reinterpret_cast<float*>(at); }
inline std::int32_t* ints(Address at) { return reinterpret_cast<std::int32_t*>(at); }
inline const std::int64_t* longs(Address at) { return reinterpret_cast<const std::int64_t*>(at); }
inline void* memory(Address at) { return reinterpret_cast<void*>(at); }

inline void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

// Runs `a`, whose weights and sizes are set, on rows.
void run_experts(Experts& a, Address x, Index x_stride, Address chosen, Address weights, Index rows, Index top_k,
                 Address out);

void bind_matrices(nb::module_& m);
void bind_coded(nb::module_& m);
void bind_rows(nb::module_& m);
void bind_sessions(nb::module_& m);
void bind_memory(nb::module_& m);

}  // namespace ramet
