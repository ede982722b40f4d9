// Causal convolution of each channel over its session's last inputs, then silu. Taps are summed from the oldest on.
#include "../ops.h"
#include "../parallel.h"
#include "../simd.h"

namespace ramet::RAMET_ISA {

void causal_conv(const Conv& a) {
  constexpr Index kChannels = 256;  // per piece
  const Index strips = (a.width + kChannels - 1) / kChannels, window = a.taps - 1;
  const Index rows = a.spans.offsets[a.spans.count];
  const double cost = static_cast<double>(rows * a.width * (a.taps + 8));
  parallel_for(a.spans.count * strips, cost, [&](Index piece) {
    const Index s = piece / strips, from = piece % strips * kChannels;
    const Index channels = from + kChannels <= a.width ? kChannels : a.width - from;
    const Index first = a.spans.offsets[s], length = a.spans.offsets[s + 1] - first;
    float* const state = a.spans.states[s] + a.state_offset + from;
    // The input `back` tokens before the session's row t of this step, which may lie in the window.
    const auto input = [&](Index t) {
      return t >= 0 ? a.x + (first + t) * a.x_stride + from : state + (window + t) * a.width;
    };
    for (Index t = 0; t < length; ++t) {
      float* const out = a.out + (first + t) * a.width + from;
      over_columns(channels, [&](Index c, int lanes) {
        Vec sum = zero();
        for (Index tap = 0; tap < a.taps; ++tap) {
          const Vec weight = load_lanes(a.weight + tap * a.width + from + c, lanes);
          sum = fma(weight, load_lanes(input(t - window + tap) + c, lanes), sum);
        }
        store_lanes(out + c, silu(sum), lanes);
      });
    }
    // Oldest first, so that a place is written after the last read of what was there.
    for (Index i = 0; i < window; ++i)
      std::memmove(state + i * a.width, input(length - window + i), static_cast<std::size_t>(channels) * sizeof(float));
  });
}

}  // namespace ramet::RAMET_ISA
