// The table of one instruction set's ops.
#include "ops.h"

namespace ramet::RAMET_ISA {

void linear(const Linear&);
void head_linear(const HeadLinear&);
void coded_linear(const CodedLinear&);
void coded_heads(const CodedHeads&);
void layer_norm(const LayerNorm&);
void rms_norm(const Norm&);
void gated_rms_norm(const Norm&);
void norm_rope(const NormRope&);
void rope(const Rope&);
void swiglu(const Swiglu&);
void sigmoid_gate(const SigmoidGate&);
void gelu_tanh(const Gelu&);
void add_gated(const AddGated&);
void causal_conv(const Conv&);
void delta_rule(const DeltaRule&);
void attention(const Attention&);
void segment_attention(const SegmentAttention&);
void latent_attention(const LatentAttention&);
void indexer(const Indexer&);
void route(const Route&);
void route_by_score(const RouteByScore&);
void experts(const Experts&);
void weigh_experts(const WeighExperts&);
void hyper_weights(const HyperWeights&);
void hyper_collapse(const HyperCollapse&);
void hyper_expand(const HyperExpand&);
void compress(const Compress&);
void select_entries(const SelectEntries&);
void entry_attention(const EntryAttention&);
void bound_postings(const BoundPostings&);
void look_up_postings(const LookUpPostings&);
Index rank_postings(const RankPostings&);
Index near_codes(const NearCodes&);
void unit_vectors(const UnitVectors&);

extern const Ops ops;
// In the order of the table, one a line.
const Ops ops = {
    linear,
    head_linear,
    coded_linear,
    coded_heads,
    layer_norm,
    rms_norm,
    gated_rms_norm,
    norm_rope,
    rope,
    swiglu,
    sigmoid_gate,
    gelu_tanh,
    add_gated,
    causal_conv,
    delta_rule,
    attention,
    segment_attention,
    latent_attention,
    indexer,
    route,
    route_by_score,
    experts,
    weigh_experts,
    hyper_weights,
    hyper_collapse,
    hyper_expand,
    compress,
    select_entries,
    entry_attention,
    bound_postings,
    look_up_postings,
    rank_postings,
    near_codes,
    unit_vectors,
};

}  // namespace ramet::RAMET_ISA
