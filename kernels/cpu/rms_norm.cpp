#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

namespace {

// Four sums side by side, since one would wait for itself at every step.
float sum_of_squares(const float* x, int n) {
  F32x8 sums[4] = {F32x8::zero(), F32x8::zero(), F32x8::zero(), F32x8::zero()};
  int c = 0;
  for (; c + 4 * kLanes <= n; c += 4 * kLanes) {
    for (int i = 0; i < 4; ++i) {
      const F32x8 v = F32x8::load(x + c + i * kLanes);
      sums[i] = fma(v, v, sums[i]);
    }
  }
  for (; c < n; c += kLanes) {
    const F32x8 v = load_part(x + c, n - c);
    sums[0] = fma(v, v, sums[0]);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

void rms_norm(const RmsNormArgs& args, Stream& stream) {
  const int n = args.hidden_size;
  const int grain = 1 + 4096 / n;
  stream.parallel_for(args.n_tokens, grain, [&](int first_token, int last_token) {
    for (int t = first_token; t < last_token; ++t) {
      const float* x = args.x + int64_t{t} * n;
      float* out = args.out + int64_t{t} * n;
      const float mean = sum_of_squares(x, n) / static_cast<float>(n);
      const F32x8 factor = F32x8::set1(1.0f / __builtin_sqrtf(mean + args.eps));
      for (int c = 0; c < n; c += kLanes) {
        store_part((load_part(x + c, n - c) * factor) * load_part(args.weight + c, n - c), out + c, n - c);
      }
    }
  });
}

}  // namespace sala::SALA_ISA
