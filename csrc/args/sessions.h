// What is given to the ops that read and write the states of sessions, or look from row to row.
#pragma once

#include <cstdint>

#include "index.h"

namespace ramet {

constexpr int kPageTokens = 64;  // tokens per page

// Sessions of a step. Rows [offsets[s], offsets[s + 1]) belong to session s and start at absolute position
// positions[s].
struct SpanView {
  Index count;
  const Index* offsets;
  const Index* positions;
  float* const* states;
  void* const* pages;        // of all sessions, one after the other
  bool half;                 // their rows are bfloat16, else float32
  const Index* first_page;   // where those of session s begin
};

struct Conv {
  const float* x;
  Index x_stride;
  const float* weight;  // [taps][width]
  Index taps, width;
  SpanView spans;
  Index state_offset;
  float* out;
};

struct DeltaRule {
  const float* qkv;
  Index qkv_stride;
  const float* a;
  Index a_stride;
  const float* b;
  Index b_stride;
  const float* A_log;
  const float* dt_bias;
  Index k_heads, v_heads, k_dim, v_dim;
  SpanView spans;
  Index state_offset;
  float* out;
};

struct Attention {
  const float* q;
  Index q_stride;
  const float* k;
  Index k_stride;
  const float* v;
  Index v_stride;
  Index heads, kv_heads, head_dim;
  float scale;
  SpanView spans;
  Index k_offset, v_offset;
  float* out;
};

// Segments of rows, [offsets[s], offsets[s + 1]), in which every row sees every other and none outside.
struct SegmentAttention {
  const float* q;
  Index q_stride;
  const float* k;
  Index k_stride;
  const float* v;
  Index v_stride;
  Index heads, head_dim;
  float scale;
  Index segments;
  const Index* offsets;
  float* out;
};

// A page holds its rows, [64][latent + rope], at `offset`: the key of every head, and in its first columns their value.
struct LatentAttention {
  const float* q;  // [rows][heads][latent]
  Index q_stride;
  const float* q_rope;  // [rows][heads][rope], the heads `q_rope_slot` columns apart
  Index q_rope_stride, q_rope_slot;
  const float* latent;  // new rows
  Index latent_stride;
  const float* rope_key;
  Index rope_key_stride;
  Index heads, latent_size, rope_size;
  float scale;
  const std::int32_t* chosen;  // [rows][top_k], rising positions for rows that see more than top_k; or null
  Index top_k;
  SpanView spans;
  Index offset;
  float* out;
};

// A page holds its indexer keys, [head_dim][64], at `offset`.
struct Indexer {
  const float* q;
  Index q_stride;
  const float* k;
  Index k_stride;
  const float* weights;  // [rows][heads]
  Index weights_stride;
  Index heads, head_dim, top_k;
  SpanView spans;
  Index offset;
  std::int32_t* chosen;  // [rows][top_k]
};

// Groups of `ratio` tokens pooled into one entry each, which goes into the page where its group ends.
struct Compress {
  const float* kv;
  Index kv_stride;
  const float* gate;
  Index gate_stride;
  const float* bias;  // [ratio][series * size]
  const float* norm;
  float eps;
  const float* table;  // [rows][rotary], at the first position of each row's group
  Index rotary, ratio, series, size;
  SpanView spans;
  Index state_offset, entry_offset;
};

// The best entries of each row, by the indexer's scores.
struct SelectEntries {
  const float* q;
  Index q_stride;
  const float* weights;
  Index weights_stride, heads, size, ratio, top_k;
  float scale;
  SpanView spans;
  Index entry_offset;
  std::int32_t* chosen;  // ascending, then -1
};

// Attention over a window of raw keys and over compressed entries, which are keys and values at once.
struct EntryAttention {
  const float* q;
  Index q_stride;
  const float* kv;
  Index kv_stride;
  const float* sinks;
  Index heads, size;
  float scale;
  Index window, ratio;         // ratio 0: no entries
  const std::int32_t* chosen;  // null: every entry
  Index top_k;
  SpanView spans;
  Index window_offset, entry_offset;
  float* out;
};

}  // namespace ramet
