#include "pack.h"

#include <cmath>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "parallel.h"

namespace ramet {
namespace {

// Where a panel keeps its output `lane`: float32 in order; bfloat16 0, 16, 1, 17, ...
constexpr int place(int lane, bool half) {
  return !half ? lane : lane < kPanel / 2 ? 2 * lane : 2 * (lane - kPanel / 2) + 1;
}

template <class Weight>
void pack_as(const Weight* weight, Weight* packed, Index outputs, Index inputs) {
  constexpr bool half = sizeof(Weight) == 2;
  parallel_for((outputs + kPanel - 1) / kPanel, static_cast<double>(outputs * inputs), [&](Index panel) {
    Weight* const to = packed + panel * inputs * kPanel;
    for (int lane = 0; lane < kPanel; ++lane) {
      const Index row = panel * kPanel + lane;
      const int at = place(lane, half);
      if (row < outputs)
        for (Index k = 0; k < inputs; ++k) to[k * kPanel + at] = weight[row * inputs + k];
      else
        for (Index k = 0; k < inputs; ++k) to[k * kPanel + at] = 0;
    }
  });
}

float widen(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
float widen(float x) { return x; }

template <class Weight>
void copy_row(const Weight* from, Index stride, Index width, float* to) {
  for (Index k = 0; k < width; ++k) to[k] = widen(from[k * stride]);
}

}  // namespace

void pack(const void* weight, void* packed, Index outputs, Index inputs, bool half) {
#if defined(__linux__)
  // Huge pages save a walk through the page table every 4 kB when the panels stream by. A wish: failure is no harm.
  const Index bytes = (outputs + kPanel - 1) / kPanel * kPanel * inputs * (half ? 2 : 4);
  const auto begin = (reinterpret_cast<std::uintptr_t>(packed) + 4095) / 4096 * 4096;
  const auto end = (reinterpret_cast<std::uintptr_t>(packed) + static_cast<std::uintptr_t>(bytes)) / 4096 * 4096;
  if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  if (half)
    pack_as(static_cast<const std::uint16_t*>(weight), static_cast<std::uint16_t*>(packed), outputs, inputs);
  else
    pack_as(static_cast<const float*>(weight), static_cast<float*>(packed), outputs, inputs);
}

bool embed(const void* weight, bool half, Index rows, Index width, const std::int64_t* tokens, Index count,
           float* out) {
  for (Index t = 0; t < count; ++t) {
    if (tokens[t] < 0 || tokens[t] >= rows) return false;
    const Index at = tokens[t] * width;
    if (half)
      copy_row(static_cast<const std::uint16_t*>(weight) + at, 1, width, out + t * width);
    else
      copy_row(static_cast<const float*>(weight) + at, 1, width, out + t * width);
  }
  return true;
}

bool embed_packed(const Packed& w, const std::int64_t* tokens, Index count, float* out) {
  for (Index t = 0; t < count; ++t) {
    if (tokens[t] < 0 || tokens[t] >= w.outputs) return false;
    const Index at = tokens[t] / kPanel * w.inputs * kPanel + place(static_cast<int>(tokens[t] % kPanel), w.half);
    if (w.half)
      copy_row(static_cast<const std::uint16_t*>(w.weights) + at, kPanel, w.inputs, out + t * w.inputs);
    else
      copy_row(static_cast<const float*>(w.weights) + at, kPanel, w.inputs, out + t * w.inputs);
  }
  return true;
}

void rope_table(const std::int64_t* positions, const float* frequencies, Index count, Index half, float* table) {
  for (Index t = 0; t < count; ++t)
    for (Index j = 0; j < half; ++j) {
      const double angle = static_cast<double>(static_cast<float>(positions[t]) * frequencies[j]);
      table[t * 2 * half + j] = static_cast<float>(std::cos(angle));
      table[t * 2 * half + half + j] = static_cast<float>(std::sin(angle));
    }
}

}  // namespace ramet
