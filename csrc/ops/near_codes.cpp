// The rows whose sign codes promise the nearest vectors to a question. First by Hamming distance between the codes; of
// those that are near, by the question's own values against their signs: where it is weak, a sign that differs says little.
#include <algorithm>
#include <vector>

#include "../ops.h"
#include "../parallel.h"

namespace ramet::RAMET_ISA {
namespace {

constexpr Index kPiece = 1 << 14;  // rows
constexpr int kTables = 4;         // successive rows often have the same distance: counted in one table they would wait
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

std::size_t size(Index n) { return static_cast<std::size_t>(n); }

Index row_at(const NearCodes& a, Index i) { return a.among != nullptr ? a.among[i] : i; }

// The distances of rows [from, to), and how many there are of each. `known`: the words of a code where that is a constant,
// so that the loop over them is unrolled.
template <int known>
void measure(const NearCodes& a, Index from, Index to, std::uint16_t* distances, std::int32_t* having) {
  const Index words = known > 0 ? known : a.words;
  for (Index i = from; i < to; ++i) {
    const Index row = row_at(a, i);
    const bool present = a.mark == 0 ? a.marks[row] != 0 : a.marks[row] == a.mark;
    const std::uint64_t* const code = a.codes + row * words;
    int distance = 0;
    for (Index word = 0; word < words; ++word) distance += ones(code[word] ^ a.code[word]);
    distances[i] = present ? static_cast<std::uint16_t>(distance) : kAbsent;
    having[distance * kTables + i % kTables] += present;
  }
}

struct Near {
  float promise;
  std::int64_t row;
};

// What every byte of signs adds: the question's values where they are set.
std::vector<float> sums_of_bytes(const NearCodes& a) {
  std::vector<float> sums(size(a.words * 8 * 256));
  for (Index byte = 0; byte < a.words * 8; ++byte)
    for (Index bits = 1; bits < 256; ++bits) {
      const int lowest = __builtin_ctz(static_cast<unsigned>(bits));
      const Index dimension = byte * 8 + 7 - lowest;  // the first of eight is the highest bit
      const float value = dimension < a.dimensions ? a.question[dimension] : 0.0f;
      sums[size(byte * 256 + bits)] = sums[size(byte * 256 + (bits & (bits - 1)))] + value;
    }
  return sums;
}

}  // namespace

Index near_codes(const NearCodes& a) {
  const Index distances_of_codes = 64 * a.words + 1, pieces = (a.count + kPiece - 1) / kPiece;
  std::vector<std::uint16_t> distances(size(a.count));
  std::vector<std::int32_t> having(size(pieces * distances_of_codes * kTables));
  parallel_for(pieces, static_cast<double>(a.count * a.words * 2), [&](Index piece) {
    const Index from = piece * kPiece, to = std::min(from + kPiece, a.count);
    std::int32_t* const own = having.data() + piece * distances_of_codes * kTables;
    (a.words == 6 ? measure<6> : measure<0>)(a, from, to, distances.data(), own);
  });
  // The distance within which `looked` codes lie, or all.
  Index limit = -1, within = 0;
  while (within < a.looked && limit + 1 < distances_of_codes) {
    ++limit;
    for (Index piece = 0; piece < pieces; ++piece)
      for (int table = 0; table < kTables; ++table)
        within += having[size((piece * distances_of_codes + limit) * kTables + table)];
  }
  const std::vector<float> sums = sums_of_bytes(a);
  std::vector<Near> near;
  near.reserve(size(within));
  for (Index i = 0; i < a.count; ++i) {
    if (distances[size(i)] > limit) continue;
    const std::int64_t row = row_at(a, i);
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(a.codes + row * a.words);
    float promise = 0;
    for (Index byte = 0; byte < a.words * 8; ++byte) promise += sums[size(byte * 256 + bytes[byte])];
    near.push_back({promise, row});
  }
  const Index found = std::min(a.most, static_cast<Index>(near.size()));
  std::nth_element(near.begin(), near.begin() + found, near.end(), [](const Near& x, const Near& y) {
    return x.promise > y.promise || (x.promise == y.promise && x.row < y.row);
  });
  for (Index i = 0; i < found; ++i) a.rows[i] = near[size(i)].row;
  std::sort(a.rows, a.rows + found);
  return found;
}

}  // namespace ramet::RAMET_ISA
