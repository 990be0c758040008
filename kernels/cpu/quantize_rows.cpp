#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kRowsPerPiece = 4;

// One group of n values; the sum of q is returned.
int32_t quantize_group(const float* x, int n, int8_t* q, float* scale) {
  F32x8 lanes = F32x8::zero();
  for (int i = 0; i < n; i += kLanes) lanes = max(abs(load_part(x + i, n - i)), lanes);
  *scale = max_lane(lanes) / 127;
  if (!(*scale > 0)) {
    std::memset(q, 0, n);
    return 0;
  }
  const F32x8 divisor = F32x8::set1(*scale), limit = F32x8::set1(127), negative_limit = F32x8::set1(-127);
  int32_t sum = 0;
  for (int i = 0; i < n; i += kLanes) {
    const F32x8 ratio = max(min(load_part(x + i, n - i) / divisor, limit), negative_limit);
    if (n - i >= kLanes) {
      sum += store_rounded(ratio, q + i);
    } else {
      int8_t part[kLanes];
      sum += store_rounded(ratio, part);
      std::memcpy(q + i, part, n - i);
    }
  }
  return sum;
}

}  // namespace

void quantize_rows(const QuantizeRowsArgs& args, Stream& stream) {
  CHECK(args.group_size > 0 && args.n_cols % args.group_size == 0);
  const int n_groups = args.n_cols / args.group_size;
  stream.parallel_for(args.n_rows, kRowsPerPiece, [&](int begin, int end) {
    float* ordered = args.column_order ? static_cast<float*>(Stream::scratch(sizeof(float) * args.n_cols)) : nullptr;
    for (int64_t r = begin; r < end; ++r) {
      const float* x = args.x + r * args.n_cols;
      if (ordered) {
        for (int k = 0; k < args.n_cols; ++k) ordered[k] = x[args.column_order[k]];
        x = ordered;
      }
      for (int g = 0; g < n_groups; ++g) {
        const int64_t rg = r * n_groups + g;
        const int32_t sum = quantize_group(x + static_cast<int64_t>(g) * args.group_size, args.group_size,
                                           args.q + rg * args.group_size, args.scales + rg);
        if (args.sums) args.sums[rg] = sum;
      }
    }
  });
}

}  // namespace sala::SALA_ISA
