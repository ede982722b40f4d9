// Packing of weights, and reading rows of a matrix by number.
#pragma once

#include "ops.h"

namespace ramet {

void pack(const void* weight, void* packed, Index outputs, Index inputs, bool half);

// Rows `tokens` of a [rows, width] matrix, widened to float32. False if a token has no row.
bool embed(const void* weight, bool half, Index rows, Index width, const std::int64_t* tokens, Index count, float* out);
bool embed_packed(const Packed& w, const std::int64_t* tokens, Index count, float* out);

// Cosines and sines of the float32 products positions[i] * frequencies[j].
void rope_table(const std::int64_t* positions, const float* frequencies, Index count, Index half, float* table);

}  // namespace ramet
