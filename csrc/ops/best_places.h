// Which of many scores are the largest: exactly, by counting on the bits of the scores, in a time that does not depend on
// what they are.
#pragma once

#include <cstring>

#include "../ops.h"

namespace ramet::RAMET_ISA {

// The places of the `top_k` largest of `count` > top_k scores, rising; of equal ones the lowest. Writes over the scores.
inline void best_places(float* scores, Index count, Index top_k, std::int32_t* places) {
  // Bits whose order as whole numbers is that of the scores; the two zeros are one, and what is no number comes last.
  std::uint32_t* const keys = reinterpret_cast<std::uint32_t*>(scores);
  for (Index i = 0; i < count; ++i) {
    const float score = scores[i] + 0.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    bits = score == score ? bits : 0;
    std::memcpy(keys + i, &bits, sizeof bits);
  }
  const auto key_at = [&](Index i) {
    std::uint32_t key;
    std::memcpy(&key, keys + i, sizeof key);
    return key;
  };
  // The bits of the last key taken, from the top: 11, 11 and 10. `wanted` of the keys that share them so far are taken.
  std::uint32_t least = 0;
  Index wanted = top_k;
  int below = 32;
  for (const int bits : {11, 11, 10}) {
    std::int32_t counts[2048] = {};
    const int shift = below - bits;
    for (Index i = 0; i < count; ++i) {
      const std::uint32_t key = key_at(i);
      if (below == 32 || key >> below == least) ++counts[key >> shift & ((1u << bits) - 1)];
    }
    std::uint32_t digit = (1u << bits) - 1;
    for (; counts[digit] < wanted; --digit) wanted -= counts[digit];
    least = least << bits | digit;
    below = shift;
  }
  for (Index i = 0; i < count; ++i) {
    const std::uint32_t key = key_at(i);
    if (key > least || (key == least && wanted-- > 0)) *places++ = static_cast<std::int32_t>(i);
  }
}

}  // namespace ramet::RAMET_ISA
