// How often rows are on lists, and how long their turns are: each row is looked for in its piece of every list.
#include <algorithm>

#include "../ops.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr std::uint32_t kRowMask = kPostingRows - 1;
constexpr Index kNear = 32;

// The first posting of [0, size) whose row is not before `row`, or the last one.
const std::uint32_t* at_row(const std::uint32_t* postings, Index size, std::uint32_t row) {
  // In a long list a row is about where it would be if all were as far apart.
  const Index low = (row * size >> kPostingRowBits) - kNear, high = low + 2 * kNear;
  if (low >= 0 && high < size && (postings[low] & kRowMask) < row && (postings[high] & kRowMask) >= row) {
    postings += low;
    size = 2 * kNear + 1;
  }
  const std::uint32_t* const last = postings + size - 1;
  return std::lower_bound(postings, last, row, [](std::uint32_t posting, std::uint32_t to) {
    return (posting & kRowMask) < to;
  });
}

}  // namespace

void look_up_postings(const LookUpPostings& a) {
  std::fill(a.lengths, a.lengths + a.count, 0);
  for (Index list = 0; list < a.lists; ++list) {
    std::int32_t* const frequencies = a.frequencies + list * a.count;
    Index piece = a.first[list];
    const Index end = a.first[list + 1];
    for (Index i = 0; i < a.count; ++i) {
      frequencies[i] = 0;
      const std::int64_t row = a.rows[i];
      while (piece + 1 < end && a.starts[piece + 1] <= row) ++piece;
      if (piece == end || a.sizes[piece] == 0 || (a.starts[piece] ^ row) >= kPostingRows) continue;  // another block's
      const auto within = static_cast<std::uint32_t>(row & kRowMask);
      const std::uint32_t posting = *at_row(a.postings[piece], a.sizes[piece], within);
      if ((posting & kRowMask) != within) continue;
      frequencies[i] = static_cast<std::int32_t>((posting >> kPostingRowBits & kPostingFrequencies) + 1);
      a.lengths[i] = static_cast<std::int32_t>(posting >> kPostingLengthShift);
    }
  }
}

}  // namespace ramet::RAMET_ISA
