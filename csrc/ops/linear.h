#pragma once

#include "../ops.h"

namespace ramet::RAMET_ISA {

// Used by the experts too.
void linear(const Linear&);
void coded_linear(const CodedLinear&);
void swiglu(const Swiglu&);

}  // namespace ramet::RAMET_ISA
