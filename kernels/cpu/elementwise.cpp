#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

namespace {

// Elements of one step; below a few of these, a token's, a second thread costs more than it saves.
constexpr int kStep = 1024;
constexpr int kGrain = 6;  // steps that no second thread is called for

// Calls body(i, lanes) for every vector of 0 … n − 1; the last may have less than 8 lanes.
template <class Body>
void for_vectors(int64_t n, int grain, Stream& stream, Body body) {
  const int n_steps = static_cast<int>((n + kStep - 1) / kStep);
  stream.parallel_for(n_steps, grain, [&](int first_step, int last_step) {
    const int64_t end = int64_t{last_step} * kStep < n ? int64_t{last_step} * kStep : n;
    for (int64_t i = int64_t{first_step} * kStep; i < end; i += kLanes) {
      body(i, end - i < kLanes ? static_cast<int>(end - i) : kLanes);
    }
  });
}

}  // namespace

void swiglu(const SwigluArgs& args, Stream& stream) {
  for_vectors(args.n, kGrain, stream, [&](int64_t i, int lanes) {
    store_part(silu(load_part(args.gate + i, lanes)) * load_part(args.up + i, lanes), args.out + i, lanes);
  });
}

void sigmoid_gate(const SigmoidGateArgs& args, Stream& stream) {
  for_vectors(args.n, kGrain, stream, [&](int64_t i, int lanes) {
    store_part(load_part(args.x + i, lanes) * sigmoid(load_part(args.gate + i, lanes)), args.x + i, lanes);
  });
}

void add_scaled(const AddScaledArgs& args, Stream& stream) {
  const F32x8 scale = F32x8::set1(args.scale);
  for_vectors(args.n, 16, stream, [&](int64_t i, int lanes) {
    store_part(fma(scale, load_part(args.y + i, lanes), load_part(args.x + i, lanes)), args.x + i, lanes);
  });
}

}  // namespace sala::SALA_ISA
