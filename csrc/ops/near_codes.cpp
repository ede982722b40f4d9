// The rows whose sign codes are nearest to a code by Hamming distance: distances and how many there are of each in one
// pass, those within the distance that holds enough of them in another.
#include <algorithm>
#include <vector>

#include "../ops.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr std::uint16_t kAbsent = 0xFFFF;

inline int ones(std::uint64_t bits) {
#ifdef __POPCNT__
  return __builtin_popcountll(bits);
#else
  bits -= bits >> 1 & 0x5555555555555555u;
  bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
  bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  return static_cast<int>(bits * 0x0101010101010101u >> 56);
#endif
}

// `words` is a constant where it is known, so that the loop over them is unrolled.
template <int known>
void measure(const NearCodes& a, std::uint16_t* distances, std::int64_t* having) {
  const Index words = known > 0 ? known : a.words;
  for (Index i = 0; i < a.count; ++i) {
    const Index row = a.among != nullptr ? a.among[i] : i;
    const bool present = a.mark == 0 ? a.marks[row] != 0 : a.marks[row] == a.mark;
    const std::uint64_t* const code = a.codes + row * words;
    int distance = 0;
    for (Index word = 0; word < words; ++word) distance += ones(code[word] ^ a.code[word]);
    distances[i] = present ? static_cast<std::uint16_t>(distance) : kAbsent;
    having[distance] += present;
  }
}

}  // namespace

Index near_codes(const NearCodes& a) {
  std::vector<std::uint16_t> distances(static_cast<std::size_t>(a.count));
  std::vector<std::int64_t> having(static_cast<std::size_t>(64 * a.words + 1));
  (a.words == 6 ? measure<6> : measure<0>)(a, distances.data(), having.data());
  int limit = 0;
  for (std::int64_t within = having[0]; within < a.most && limit < 64 * a.words;)
    within += having[static_cast<std::size_t>(++limit)];
  Index found = 0;
  for (Index i = 0; i < a.count && found < a.room; ++i)
    if (distances[static_cast<std::size_t>(i)] <= limit) a.rows[found++] = a.among != nullptr ? a.among[i] : i;
  return found;
}

}  // namespace ramet::RAMET_ISA
