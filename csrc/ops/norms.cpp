#include "norms.h"

#include "../parallel.h"

namespace ramet::RAMET_ISA {
namespace {

// Rows per piece: a few thousand columns, so that a piece is worth taking.
Index rows_per_piece(Index columns) { return columns >= 4096 ? 1 : 4096 / (columns + 1) + 1; }

template <class Row>
void over_rows(Index rows, Index columns, double cost, Row row) {
  const Index step = rows_per_piece(columns);
  parallel_for((rows + step - 1) / step, cost * static_cast<double>(rows * columns), [&](Index piece) {
    const Index end = (piece + 1) * step < rows ? (piece + 1) * step : rows;
    for (Index r = piece * step; r < end; ++r) row(r);
  });
}

}  // namespace

void rms_norm(const Norm& a) {
  const Index columns = a.groups * a.size;
  const Vec offset = all(a.zero_centred ? 1.0f : 0.0f);
  over_rows(a.rows, columns, 1, [&](Index r) {
    for (Index g = 0; g < a.groups; ++g) {
      const float* const x = a.x + r * a.x_stride + g * a.size;
      float* const out = a.out + r * columns + g * a.size;
      const Vec scale = all(inverse_rms(x, a.size, a.eps));
      over_columns(a.size, [&](Index c, int lanes) {
        const Vec weight = load_lanes(a.weight + c, lanes) + offset;
        store_lanes(out + c, load_lanes(x + c, lanes) * scale * weight, lanes);
      });
    }
  });
}

void gated_rms_norm(const Norm& a) {
  const Index columns = a.groups * a.size;
  over_rows(a.rows, columns, 4, [&](Index r) {
    for (Index g = 0; g < a.groups; ++g) {
      const float* const x = a.x + r * a.x_stride + g * a.size;
      const float* const z = a.z + r * a.z_stride + g * a.size;
      float* const out = a.out + r * columns + g * a.size;
      const Vec scale = all(inverse_rms(x, a.size, a.eps));
      over_columns(a.size, [&](Index c, int lanes) {
        const Vec normed = load_lanes(a.weight + c, lanes) * (load_lanes(x + c, lanes) * scale);
        store_lanes(out + c, normed * silu(load_lanes(z + c, lanes)), lanes);
      });
    }
  });
}

void norm_rope(const NormRope& a) {
  const Index columns = a.heads * a.size, half = a.rotary / 2;
  const Vec offset = all(a.zero_centred ? 1.0f : 0.0f);
  over_rows(a.rows, columns, 2, [&](Index r) {
    const float* const cosines = a.table + r * a.rotary;
    const float* const sines = cosines + half;
    for (Index h = 0; h < a.heads; ++h) {
      const float* const x = a.x + r * a.x_stride + h * a.slot;
      float* const out = a.out + r * columns + h * a.size;
      const Vec scale = all(inverse_rms(x, a.size, a.eps));
      over_columns(a.size, [&](Index c, int lanes) {
        const Vec weight = load_lanes(a.weight + c, lanes) + offset;
        store_lanes(out + c, load_lanes(x + c, lanes) * scale * weight, lanes);
      });
      over_columns(half, [&](Index c, int lanes) {
        const Vec left = load_lanes(out + c, lanes), right = load_lanes(out + half + c, lanes);
        const Vec cosine = load_lanes(cosines + c, lanes), sine = load_lanes(sines + c, lanes);
        store_lanes(out + c, left * cosine - right * sine, lanes);
        store_lanes(out + half + c, right * cosine + left * sine, lanes);
      });
    }
  });
}

}  // namespace ramet::RAMET_ISA
