// Attention over rows that all heads share: a row is every head's key, and its first columns are every head's value.
//
// Lanes are heads for the scores and the softmax, columns for the sums of values, so a row is read as it lies, with no
// transposed copy. Whatever the shapes of the register blocks, a score is summed over the columns in order, a softmax
// and its values over the rows in order.
#pragma once

#include "register_blocks.h"

namespace ramet::RAMET_ISA {

constexpr Index kHeads = 32;                           // heads that meet a block of rows together
constexpr Index kBlock = kPageTokens;                  // rows of a block
constexpr int kPair = 2;                               // vectors per register block

// Up to kHeads heads of one token, on their way through the blocks of rows that the token sees; all in one piece of
// working memory.
struct SharedRowsToken {
  float* q;       // [size][kHeads], the lanes of absent heads zero
  float* result;  // [heads][value size]
  float* top;     // [kHeads]: largest score so far
  float* total;   // [kHeads]: sum of the weights so far

  static constexpr Index floats(Index size, Index value_size) { return kHeads * (size + value_size + 2); }

  SharedRowsToken(float* memory, Index size, Index value_size) {
    q = memory;
    result = q + size * kHeads;
    top = result + value_size * kHeads;
    total = top + kHeads;
  }

  // Nothing seen yet; q is to be filled in.
  void clear() {
    std::memset(q, 0, static_cast<std::size_t>(total + kHeads - q) * sizeof(float));
    for (Index h = 0; h < kHeads; ++h) top[h] = -__builtin_inff();
  }
};

// scores[r][..] = rows[r] . q for R rows and V vectors of heads.
template <int R, int V>
RAMET_INLINE void shared_scores(const float* rows, Index size, const float* q, float* scores) {
  score_rows<kHeads, R, V>([=](int r) { return rows + r * size; }, size, q, scores);
}

// result[h] = result[h] * fade[h] + weights[0..count)[h] . rows, for R heads and V vectors of columns, the last `lanes`
// wide.
template <int R, int V>
RAMET_INLINE void shared_values(const float* weights, const float* fade, const float* rows, Index size, Index count,
                                float* result, Index value_size, int lanes) {
  add_values<1, kHeads, R, V>(weights, fade, [=](Index i) { return rows + i * size; }, count, result, value_size, lanes);
}

// The running softmax of a vector of heads over a block's scores, which become weights.
RAMET_INLINE void shared_weights(float* scores, Index count, Vec scale, float* running_top, float* running_total,
                                 float* fade) {
  const Vec before = load(running_top);
  Vec top = before;
  for (Index i = 0; i < count; ++i) {
    const Vec s = load(scores + i * kHeads) * scale;
    store(scores + i * kHeads, s);
    top = max(top, s);
  }
  const Vec fades = exp(before - top);
  Vec total = load(running_total) * fades;
  for (Index i = 0; i < count; ++i) {
    const Vec weight = exp(load(scores + i * kHeads) - top);
    store(scores + i * kHeads, weight);
    total = total + weight;
  }
  store(running_top, top);
  store(running_total, total);
  store(fade, fades);
}

// The token attends to the next `count` rows, [count][size] with 1 <= count <= kBlock. `scores` is working memory of
// (kBlock + 1) * kHeads floats. While the values are summed, `meanwhile(done, of)` is called again and again, with the
// share of them that will be done when it is called next.
template <class Meanwhile>
void attend_shared_rows(const SharedRowsToken& token, Index heads, const float* rows, Index size, Index value_size,
                        Index count, float scale, float* scores, Meanwhile meanwhile) {
  float* const fade = scores + kBlock * kHeads;
  Index head = 0;
  for (; head + Vec::width < heads; head += kPair * Vec::width)
    over_register_blocks(count, [&](Index r, auto block) {
      shared_scores<block, kPair>(rows + r * size, size, token.q + head, scores + r * kHeads + head);
    });
  if (head < heads)
    over_register_blocks(count, [&](Index r, auto block) {
      shared_scores<block, 1>(rows + r * size, size, token.q + head, scores + r * kHeads + head);
    });
  for (head = 0; head < heads; head += Vec::width)
    shared_weights(scores + head, count, all(scale), token.top + head, token.total + head, fade + head);

  Index column = 0;
  for (; column + kPair * Vec::width <= value_size; column += kPair * Vec::width)
    over_register_blocks(heads, [&](Index h, auto block) {
      meanwhile(column * heads + (h + block) * kPair * Vec::width, value_size * heads);
      shared_values<block, kPair>(scores + h, fade + h, rows + column, size, count,
                                  token.result + h * value_size + column, value_size, Vec::width);
    });
  for (; column < value_size; column += Vec::width) {
    const int lanes = value_size - column < Vec::width ? static_cast<int>(value_size - column) : Vec::width;
    over_register_blocks(heads, [&](Index h, auto block) {
      meanwhile(column * heads + (h + block) * lanes, value_size * heads);
      shared_values<block, 1>(scores + h, fade + h, rows + column, size, count,
                              token.result + h * value_size + column, value_size, lanes);
    });
  }
}

}  // namespace ramet::RAMET_ISA
