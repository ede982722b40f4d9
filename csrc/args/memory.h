// What is given to the ops of the memory: lists of postings, and vectors.
#pragma once

#include <cstdint>

#include "index.h"

namespace ramet {

constexpr int kPostingRowBits = 14;
constexpr int kPostingRows = 1 << kPostingRowBits;  // rows that the postings of one piece of a list lie among
constexpr std::uint32_t kPostingFrequencies = 31;
constexpr int kPostingLengthShift = kPostingRowBits + 5;
constexpr int kPostingLengths = 1 << (32 - kPostingLengthShift);
constexpr int kPostingBounds = 4;  // postings that stand for the best of a piece

// Lists of postings in pieces, each within an aligned block of kPostingRows rows: row in the block (14 bits), frequency
// of the term - 1 (5), length of the turn in terms (13). The pieces are sorted by block, list and first row; list 0 is
// that of the scope, 1 that of the kind, 2 + t that of term t. Rows that are not on the former two, if they count, are
// left out; frequencies are those in the scope.
struct RankPostings {
  Index pieces;
  const std::int64_t* starts;            // a row of its block
  const std::int64_t* lists;
  const std::uint32_t* const* postings;  // ascending
  const std::int64_t* sizes;
  const std::uint32_t* bounds;           // [pieces][kPostingBounds]
  bool scoped, one_kind;
  Index terms;
  const double* weights;
  std::int64_t turns;                    // in the scope
  double mean_length, k1, b;
  Index k;
  std::int64_t* rows;                    // the k best, equal ones in the order of rows
  double* scores;
};

// `first` [lists + 1]: which of the pieces are whose; those of a list are ascending.
struct LookUpPostings {
  Index lists;
  const std::int64_t* first;
  const std::int64_t* starts;            // the first row that a piece may have; it ends before the next one's or its block
  const std::uint32_t* const* postings;  // ascending
  const std::int64_t* sizes;
  Index count;
  const std::int64_t* rows;              // ascending
  std::int32_t* frequencies;             // [lists][count]; 0: the row is not on the list
  std::int32_t* lengths;                 // [count]; 0 for a row that is on none
};

struct BoundPostings {
  const std::uint32_t* postings;  // of all pieces, one after the other
  const std::int64_t* sizes;
  Index pieces;
  std::uint32_t* bounds;          // [pieces][kPostingBounds]
};

// Of the `looked` rows, among `among` or [0, count), whose codes are nearest to `code` by Hamming distance (and those
// that are as far as the last of them): the `most` whose signs have the largest dot product with the question.
struct NearCodes {
  const std::uint64_t* codes;  // [rows][words]: the sign of a dimension a bit, the first the highest of a byte
  const std::uint8_t* marks;   // of every row; 0: it has no code
  Index words;
  const std::int64_t* among;   // or null
  Index count;
  const std::uint64_t* code;
  const float* question;
  Index dimensions;
  std::uint8_t mark;           // 0: rows of any mark but 0
  Index looked, most;
  std::int64_t* rows;          // ascending
};

struct UnitVectors {
  const std::uint16_t* halves;  // IEEE 754, finite, [vectors][dimensions]
  const std::int64_t* from;     // which of the vectors each row is, -1: zeros; or null: all in order
  Index count, dimensions;
  float* out;                   // [count][dimensions]; zeros stay
};

}  // namespace ramet
