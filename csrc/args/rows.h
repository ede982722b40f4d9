// What is given to the ops that work on each row alone.
#pragma once

#include "index.h"

namespace ramet {

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

}  // namespace ramet
