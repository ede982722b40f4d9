// What every op is given, and the table of ops that each instruction set fills.
//
// Addresses and sizes only: shapes, dtypes and bounds were checked before. Rows of an input are `*_stride` elements
// apart, results are contiguous. Every row of a result depends on that row's inputs (and its session's states) alone,
// by an order of operations that does not depend on the number of rows, on the other rows, or on the threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramet {

using Index = std::ptrdiff_t;

constexpr int kPanel = 32;       // outputs per panel of packed weights
constexpr int kPageTokens = 64;  // tokens per page
constexpr int kPostingRowBits = 14;
constexpr int kPostingRows = 1 << kPostingRowBits;  // rows that the postings of one piece of a list lie among
constexpr std::uint32_t kPostingFrequencies = 31;
constexpr int kPostingLengthShift = kPostingRowBits + 5;
constexpr int kPostingLengths = 1 << (32 - kPostingLengthShift);
constexpr int kPostingBounds = 4;  // postings that stand for the best of a piece

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

struct LayerNorm {
  const float* x;
  Index x_stride;
  const float* weight;
  const float* bias;
  float eps;
  Index rows, size;
  float* out;
};

struct Norm {
  const float* x;
  Index x_stride;
  const float* z;  // gate, of gated_rms_norm
  Index z_stride;
  const float* weight;
  float eps;
  bool zero_centred;
  Index rows, groups, size;
  float* out;
};

struct NormRope {
  const float* x;
  Index x_stride;
  const float* weight;
  float eps;
  bool zero_centred;
  const float* table;  // [rows][rotary]: cosines, sines
  Index rotary, rows, heads, size, slot;
  float* out;
};

struct Rope {
  const float* x;
  Index x_stride;
  const float* table;  // [rows][rotary]: cosines, sines
  Index rotary, rows, heads, size, start;
  bool interleaved, inverse;
  float* out;
};

struct Swiglu {
  const float* x;
  Index x_stride, rows, width;
  float* out;
  float limit;  // the gate is at most this, the other factor within +-this; infinity for no limit
};

struct SigmoidGate {
  const float* x;
  Index x_stride;
  const float* gate;
  Index gate_stride, rows, heads, size, slot;
  float* out;
};

struct Gelu {
  const float* x;
  Index x_stride, rows, width;
  float* out;
};

struct AddGated {
  const float* base;
  Index base_stride;
  const float* x;
  Index x_stride;
  const float* gate;
  Index gate_stride, rows, width;
  float* out;
};

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

// The coefficients of a hyper-connection: count (collapse only) or (2 + count) * count mixes a row.
struct HyperWeights {
  const float* streams;
  Index streams_stride;
  const float* mixes;
  Index mixes_stride;
  const float* scale;  // 1 or 3
  const float* base;
  float norm_eps, eps;
  Index rows, count, hidden, iterations;
  bool collapse_only;
  float* out;
};

struct HyperCollapse {
  const float* streams;
  Index streams_stride;
  const float* weights;
  Index weights_stride, rows, count, hidden;
  float* out;
};

struct HyperExpand {
  const float* streams;
  Index streams_stride;
  const float* y;
  Index y_stride;
  const float* weights;  // as HyperWeights gives them
  Index weights_stride, rows, count, hidden;
  float* out;
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

// Lists of postings in pieces, each within an aligned block of kPostingRows rows: row in the block (14 bits), frequency of
// the term - 1 (5), length of the turn in terms (13). The pieces are sorted by block, list and first row; list 0 is that
// of the scope, 1 that of the kind, 2 + t that of term t. Rows that are not on the former two, if they count, are left
// out; frequencies are those in the scope.
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
  const std::int64_t* starts;            // the first row that a piece may have; it ends before the next one's, or its block
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

// Of the `looked` rows, among `among` or [0, count), whose codes are nearest to `code` by Hamming distance (and those that
// are as far as the last of them): the `most` whose signs have the largest dot product with the question.
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

struct Ops {
  void (*linear)(const Linear&);
  void (*head_linear)(const HeadLinear&);
  void (*coded_linear)(const CodedLinear&);
  void (*coded_heads)(const CodedHeads&);
  void (*layer_norm)(const LayerNorm&);
  void (*rms_norm)(const Norm&);
  void (*gated_rms_norm)(const Norm&);
  void (*norm_rope)(const NormRope&);
  void (*rope)(const Rope&);
  void (*swiglu)(const Swiglu&);
  void (*sigmoid_gate)(const SigmoidGate&);
  void (*gelu_tanh)(const Gelu&);
  void (*add_gated)(const AddGated&);
  void (*causal_conv)(const Conv&);
  void (*delta_rule)(const DeltaRule&);
  void (*attention)(const Attention&);
  void (*segment_attention)(const SegmentAttention&);
  void (*latent_attention)(const LatentAttention&);
  void (*indexer)(const Indexer&);
  void (*route)(const Route&);
  void (*route_by_score)(const RouteByScore&);
  void (*experts)(const Experts&);
  void (*weigh_experts)(const WeighExperts&);
  void (*hyper_weights)(const HyperWeights&);
  void (*hyper_collapse)(const HyperCollapse&);
  void (*hyper_expand)(const HyperExpand&);
  void (*compress)(const Compress&);
  void (*select_entries)(const SelectEntries&);
  void (*entry_attention)(const EntryAttention&);
  void (*bound_postings)(const BoundPostings&);
  void (*look_up_postings)(const LookUpPostings&);
  Index (*rank_postings)(const RankPostings&);  // how many there are
  Index (*near_codes)(const NearCodes&);        // likewise
  void (*unit_vectors)(const UnitVectors&);
};

}  // namespace ramet
