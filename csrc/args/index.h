// What sizes and distances are counted in.
#pragma once

#include <cstddef>

namespace ramet {

using Index = std::ptrdiff_t;

}  // namespace ramet
