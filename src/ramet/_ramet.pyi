"""The compiled kernels: addresses and sizes in, nothing checked. Private to `ramet.kernels`; `ramet.memory`,
which needs no tensors, takes its ops from here."""

from collections.abc import Sequence

PANEL: int
PAGE_TOKENS: int
POSTING_ROWS: int
POSTING_BOUNDS: int

class Spans:
    def __init__(
        self,
        lengths: Sequence[int],
        positions: Sequence[int],
        pages: Sequence[Sequence[int]],
        page_elements: int,
        half: bool,
        states: Sequence[int],
        state_elements: int,
        /,
    ) -> None: ...

def build_id() -> str: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def set_isa(name: str, /) -> None: ...
def threads() -> int: ...
def set_threads(count: int, /) -> None: ...
def pack(weight: int, packed: int, outputs: int, inputs: int, half: bool, /) -> None: ...
def linear(
    x: int,
    x_stride: int,
    packed: int,
    half: bool,
    rows: int,
    inputs: int,
    outputs: int,
    add: int,
    add_stride: int,
    out: int,
    /,
) -> None: ...
def head_linear(
    x: int,
    x_stride: int,
    slot: int,
    packed: int,
    half: bool,
    heads: int,
    inputs: int,
    outputs: int,
    rows: int,
    out: int,
    /,
) -> None: ...
def embed(weight: int, half: bool, rows: int, width: int, tokens: int, count: int, out: int, /) -> None: ...
def embed_packed(packed: int, half: bool, outputs: int, inputs: int, tokens: int, count: int, out: int, /) -> None: ...
def route(logits: int, stride: int, rows: int, experts: int, top_k: int, chosen: int, weights: int, /) -> None: ...
def route_by_score(
    logits: int,
    stride: int,
    bias: int,
    rows: int,
    experts: int,
    top_k: int,
    groups: int,
    groups_kept: int,
    sqrt_softplus: bool,
    normalise: bool,
    scale: float,
    chosen: int,
    weights: int,
    /,
) -> None: ...
def experts(
    x: int,
    x_stride: int,
    chosen: int,
    weights: int,
    gate_up: int,
    down: int,
    half: bool,
    rows: int,
    top_k: int,
    experts: int,
    hidden: int,
    intermediate: int,
    limit: float,
    out: int,
    /,
) -> None: ...

class CodedMatrices:
    def __init__(self) -> None: ...
    def append(
        self,
        coding: str,
        codes: int,
        scale: str,
        scales: int,
        rows: int,
        columns: int,
        block_rows: int,
        block_columns: int,
        /,
    ) -> None: ...

def coded_linear(
    x: int, x_stride: int, w: CodedMatrices, rows: int, outputs: int, add: int, add_stride: int, out: int, /
) -> None: ...
def coded_heads(
    x: int,
    x_stride: int,
    slot: int,
    w: CodedMatrices,
    heads: int,
    first: int,
    size: int,
    transposed: bool,
    rows: int,
    out: int,
    /,
) -> None: ...
def coded_experts(
    x: int,
    x_stride: int,
    chosen: int,
    weights: int,
    gate: CodedMatrices,
    up: CodedMatrices,
    down: CodedMatrices,
    rows: int,
    top_k: int,
    limit: float,
    out: int,
    /,
) -> None: ...
def rms_norm(
    x: int,
    x_stride: int,
    weight: int,
    eps: float,
    zero_centred: bool,
    rows: int,
    groups: int,
    size: int,
    out: int,
    /,
) -> None: ...
def gated_rms_norm(
    x: int,
    x_stride: int,
    z: int,
    z_stride: int,
    weight: int,
    eps: float,
    rows: int,
    groups: int,
    size: int,
    out: int,
    /,
) -> None: ...
def layer_norm(
    x: int, x_stride: int, weight: int, bias: int, eps: float, rows: int, size: int, out: int, /
) -> None: ...
def rope_table(positions: int, frequencies: int, count: int, half: int, table: int, /) -> None: ...
def norm_rope(
    x: int,
    x_stride: int,
    weight: int,
    eps: float,
    zero_centred: bool,
    table: int,
    rotary: int,
    rows: int,
    heads: int,
    size: int,
    slot: int,
    out: int,
    /,
) -> None: ...
def rope(
    x: int,
    x_stride: int,
    table: int,
    rotary: int,
    rows: int,
    heads: int,
    size: int,
    start: int,
    interleaved: bool,
    inverse: bool,
    out: int,
    /,
) -> None: ...
def swiglu(x: int, x_stride: int, rows: int, width: int, limit: float, out: int, /) -> None: ...
def sigmoid_gate(
    x: int, x_stride: int, gate: int, gate_stride: int, rows: int, heads: int, size: int, slot: int, out: int, /
) -> None: ...
def gelu_tanh(x: int, x_stride: int, rows: int, width: int, out: int, /) -> None: ...
def add_gated(
    base: int,
    base_stride: int,
    x: int,
    x_stride: int,
    gate: int,
    gate_stride: int,
    rows: int,
    width: int,
    out: int,
    /,
) -> None: ...
def causal_conv(
    x: int, x_stride: int, weight: int, taps: int, width: int, spans: Spans, state_offset: int, out: int, /
) -> None: ...
def delta_rule(
    qkv: int,
    qkv_stride: int,
    a: int,
    a_stride: int,
    b: int,
    b_stride: int,
    A_log: int,
    dt_bias: int,
    k_heads: int,
    v_heads: int,
    k_dim: int,
    v_dim: int,
    spans: Spans,
    state_offset: int,
    out: int,
    /,
) -> None: ...
def attention(
    q: int,
    q_stride: int,
    k: int,
    k_stride: int,
    v: int,
    v_stride: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: float,
    spans: Spans,
    k_offset: int,
    v_offset: int,
    out: int,
    /,
) -> None: ...
def segment_attention(
    q: int,
    q_stride: int,
    k: int,
    k_stride: int,
    v: int,
    v_stride: int,
    heads: int,
    head_dim: int,
    scale: float,
    lengths: list[int],
    out: int,
    /,
) -> None: ...
def latent_attention(
    q: int,
    q_stride: int,
    q_rope: int,
    q_rope_stride: int,
    q_rope_slot: int,
    latent: int,
    latent_stride: int,
    rope_key: int,
    rope_key_stride: int,
    heads: int,
    latent_size: int,
    rope_size: int,
    scale: float,
    chosen: int,
    top_k: int,
    spans: Spans,
    offset: int,
    out: int,
    /,
) -> None: ...
def indexer(
    q: int,
    q_stride: int,
    k: int,
    k_stride: int,
    weights: int,
    weights_stride: int,
    heads: int,
    head_dim: int,
    top_k: int,
    spans: Spans,
    offset: int,
    chosen: int,
    /,
) -> None: ...
def hyper_weights(
    streams: int,
    streams_stride: int,
    mixes: int,
    mixes_stride: int,
    scale: int,
    base: int,
    norm_eps: float,
    eps: float,
    rows: int,
    count: int,
    hidden: int,
    iterations: int,
    collapse_only: bool,
    out: int,
    /,
) -> None: ...
def hyper_collapse(
    streams: int,
    streams_stride: int,
    weights: int,
    weights_stride: int,
    rows: int,
    count: int,
    hidden: int,
    out: int,
    /,
) -> None: ...
def hyper_expand(
    streams: int,
    streams_stride: int,
    y: int,
    y_stride: int,
    weights: int,
    weights_stride: int,
    rows: int,
    count: int,
    hidden: int,
    out: int,
    /,
) -> None: ...
def weigh_experts(
    logits: int,
    stride: int,
    rows: int,
    experts: int,
    top_k: int,
    chosen: int,
    scale: float,
    weights: int,
    /,
) -> None: ...
def compress(
    kv: int,
    kv_stride: int,
    gate: int,
    gate_stride: int,
    bias: int,
    norm: int,
    eps: float,
    table: int,
    rotary: int,
    ratio: int,
    series: int,
    size: int,
    spans: Spans,
    state_offset: int,
    entry_offset: int,
    /,
) -> None: ...
def select_entries(
    q: int,
    q_stride: int,
    weights: int,
    weights_stride: int,
    heads: int,
    size: int,
    ratio: int,
    top_k: int,
    scale: float,
    spans: Spans,
    entry_offset: int,
    chosen: int,
    /,
) -> None: ...
def entry_attention(
    q: int,
    q_stride: int,
    kv: int,
    kv_stride: int,
    sinks: int,
    heads: int,
    size: int,
    scale: float,
    window: int,
    ratio: int,
    chosen: int,
    top_k: int,
    spans: Spans,
    window_offset: int,
    entry_offset: int,
    out: int,
    /,
) -> None: ...
def bound_postings(postings: int, sizes: int, pieces: int, bounds: int, /) -> None: ...
def look_up_postings(
    lists: int,
    first: int,
    starts: int,
    postings: int,
    sizes: int,
    count: int,
    rows: int,
    frequencies: int,
    lengths: int,
    /,
) -> None: ...
def rank_postings(
    pieces: int,
    starts: int,
    lists: int,
    postings: int,
    sizes: int,
    bounds: int,
    scoped: bool,
    one_kind: bool,
    terms: int,
    weights: int,
    turns: int,
    mean_length: float,
    k1: float,
    b: float,
    k: int,
    rows: int,
    scores: int,
    /,
) -> int: ...
def near_codes(
    codes: int,
    marks: int,
    words: int,
    among: int,
    count: int,
    code: int,
    question: int,
    dimensions: int,
    mark: int,
    looked: int,
    most: int,
    rows: int,
    /,
) -> int: ...
def unit_vectors(halves: int, from_: int, count: int, dimensions: int, out: int, /) -> None: ...
