// For every piece of a list, a few postings that stand for the best of it: nothing in the piece adds more to a score than
// the best of these does, whatever the mean length. They have the frequencies 1, 2, 3 and the highest one, each with the
// length of the shortest turn that has such a frequency (the last: of 4 or more).
#include <algorithm>

#include "../ops.h"

namespace ramet::RAMET_ISA {

void bound_postings(const BoundPostings& a) {
  const std::uint32_t* posting = a.postings;
  for (Index piece = 0; piece < a.pieces; ++piece) {
    // 2^16 - 1: no turn has the frequency. Of the lengths by frequency, less one and at most 3.
    std::uint32_t shortest[kPostingBounds] = {0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF}, most = kPostingBounds - 1;
    for (Index i = 0; i < a.sizes[piece]; ++i, ++posting) {
      const std::uint32_t frequency = *posting >> kPostingRowBits & kPostingFrequencies;
      const std::uint32_t length = *posting >> kPostingLengthShift;
      std::uint32_t& least = shortest[std::min(frequency, std::uint32_t{kPostingBounds - 1})];
      least = std::min(least, length);
      most = std::max(most, frequency);
    }
    for (std::uint32_t i = 0; i < kPostingBounds; ++i) {
      const std::uint32_t frequency = i + 1 < kPostingBounds ? i : most;
      const std::uint32_t length = std::min(shortest[i], std::uint32_t{kPostingLengths - 1});
      a.bounds[piece * kPostingBounds + i] = frequency << kPostingRowBits | length << kPostingLengthShift;
    }
  }
}

}  // namespace ramet::RAMET_ISA
