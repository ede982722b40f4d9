// What every op is given, and the table of ops that each instruction set fills.
//
// Addresses and sizes only: shapes, dtypes and bounds were checked before. Rows of an input are `*_stride` elements
// apart, results are contiguous. Every row of a result depends on that row's inputs (and its session's states) alone,
// by an order of operations that does not depend on the number of rows, on the other rows, or on the threads.
#pragma once

#include "args/matrices.h"
#include "args/memory.h"
#include "args/rows.h"
#include "args/sessions.h"

namespace ramet {

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
