// What is given to the ops that multiply by weights, and to those that choose among experts.
#pragma once

#include <cstdint>

#include "index.h"

namespace ramet {

constexpr int kPanel = 32;  // outputs per panel of packed weights

// Weights in panels: [ceil(outputs / kPanel)][inputs][kPanel], the last panel filled up with zeros. bfloat16 values are
// interleaved within the 32 of one input: 0, 16, 1, 17, ..., so that 32-bit lanes hold two vectors.
struct Packed {
  const void* weights;
  bool half;  // bfloat16
  Index outputs, inputs;
};

enum class Coding { fp8, fp4, int4, bf16, f32 };
enum class Scale { none, f32, bf16, f16, e8m0 };

// Rows of a matrix as they lie in a file, one after the other, at any address; `kernels/coded.py` says how numbers are
// coded. The scale of row r and column c is that of block (r / block_rows, c / block_columns).
struct Coded {
  const std::uint8_t* codes;   // of row 0
  const std::uint8_t* scales;  // of row 0; null for codings that have none
  Coding coding;
  Scale scale;
  Index row_bytes, row_scales;  // a row's codes, in bytes; its scales, in numbers
  Index block_rows, block_columns;
  Index first, rows, columns;   // rows [first, first + rows) are the matrix,
  bool transposed;              // or its transpose

  Index outputs() const { return transposed ? columns : rows; }
  Index inputs() const { return transposed ? rows : columns; }
};

struct Linear {
  const float* x;
  Index x_stride;
  Packed w;
  Index rows;
  const float* add;  // or null
  Index add_stride;
  float* out;
  Index out_stride;
};

struct CodedLinear {
  const float* x;
  Index x_stride;
  Coded w;
  Index rows;
  const float* add;  // or null
  Index add_stride;
  float* out;
  Index out_stride;
};

// One matrix per head: out[h] = weights[h] x[h], the heads of x `slot` columns apart.
struct HeadLinear {
  const float* x;
  Index x_stride, slot;
  const void* weights;  // per head one packed [outputs, inputs]
  bool half;
  Index heads, inputs, outputs, rows;
  float* out;
};

// As HeadLinear. The weights of head h are rows [h * share + w.first, ... + w.rows) of a matrix, or their transpose.
struct CodedHeads {
  const float* x;
  Index x_stride, slot;
  Coded w;
  Index share, heads, rows;
  float* out;
};

struct Route {
  const float* logits;
  Index stride, rows, experts, top_k;
  std::int32_t* chosen;
  float* weights;
};

enum class Score { sigmoid, sqrt_softplus };

struct RouteByScore {
  const float* logits;
  Index stride;
  const float* bias;  // [experts]
  Index rows, experts, top_k, groups, groups_kept;
  Score score;
  bool normalise;
  float scale;
  float* ranked;        // working memory: per row experts + groups
  std::int32_t* order;  // per row groups
  std::int32_t* chosen;
  float* weights;
};

struct Experts {
  const float* x;
  Index x_stride;
  const std::int32_t* chosen;
  const float* weights;
  const void* gate_up;  // per expert one packed [2 * intermediate, hidden]
  const void* down;     // per expert one packed [hidden, intermediate]
  bool half;
  const Coded* coded_gate;  // or null; instead of the packed ones, per expert one [intermediate, hidden]
  const Coded* coded_up;
  const Coded* coded_down;
  Index rows, top_k, experts, hidden, intermediate;
  // Working memory: rows * top_k rows of hidden, 2 * intermediate, intermediate and hidden columns; row numbers.
  float* gathered;
  float* gate_ups;
  float* products;
  float* results;
  std::int32_t* order;
  std::int32_t* first;  // experts + 1
  float* out;
  float limit;  // of each expert's swiglu
};

// Weights of experts that are given: sqrt(softplus(logit)) of each, divided by their sum, times `scale`.
struct WeighExperts {
  const float* logits;
  Index stride, rows, experts, top_k;
  const std::int32_t* chosen;  // [rows][top_k]
  float scale;
  float* weights;
};

}  // namespace ramet
