// A million 8-bit keys against some hundred query rows: a tile of 64 keys is converted once and meets all rows.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

// Query rows that share a converted tile: their logits (64 KB) stay in L2.
constexpr int kMaxRows = 256;

void read_span(const ReadMassArgs& args, int s, int first_row, int n_rows, float* turned, float* logits) {
  const ReadSpan& span = args.spans[s];
  const int d = args.head_dim;
  RunningSoftmax softmax[kMaxRows];
  for (int first = 0; first < span.n_rows; first += kTile) {
    const int n = span.n_rows - first < kTile ? span.n_rows - first : kTile;
    const int n_columns = (n + kLanes - 1) / kLanes * kLanes;
    if (span.k_scales) {
      transpose_tile(static_cast<const int8_t*>(span.k) + int64_t{first} * d, n, d, turned);
    } else {
      transpose_tile(static_cast<const float*>(span.k) + int64_t{first} * d, n, d, turned);
    }
    product<false>({args.q + int64_t{first_row} * d, d, turned, kTile, logits, kTile, n_rows, d, n_columns});
    for (int r = 0; r < n_rows; ++r) {
      float* row = logits + r * kTile;
      if (span.k_scales) {
        for (int i = 0; i < n; i += kLanes) {
          (F32x8::load(row + i) * load_part(span.k_scales + first + i, n - i)).store(row + i);
        }
      }
      take_logits(row, 0, n, softmax[r]);
    }
  }
  for (int r = 0; r < n_rows; ++r) {
    args.max[int64_t{first_row + r} * args.n_spans + s] = softmax[r].max;
    args.sum[int64_t{first_row + r} * args.n_spans + s] = softmax[r].sum;
  }
}

}  // namespace

void read_mass(const ReadMassArgs& args, Stream& stream) {
  const int d = args.head_dim;
  CHECK(d % kLanes == 0);
  stream.parallel_for(args.n_spans, 1, [&](int first_span, int last_span) {
    float* turned = static_cast<float*>(Stream::scratch(sizeof(float) * kTile * (d + kMaxRows)));
    for (int s = first_span; s < last_span; ++s) {
      for (int row = 0; row < args.n_rows; row += kMaxRows) {
        const int n_rows = args.n_rows - row < kMaxRows ? args.n_rows - row : kMaxRows;
        read_span(args, s, row, n_rows, turned, turned + kTile * d);
      }
    }
  });
}

}  // namespace sala::SALA_ISA
