#include <cmath>

#include "kernels/reference/reference.h"

namespace sala::reference {

void swiglu(const SwigluArgs& args, Stream&) {
  for (int64_t i = 0; i < args.n; ++i) {
    const double gate = args.gate[i];
    args.out[i] = static_cast<float>(gate / (1 + std::exp(-gate)) * args.up[i]);
  }
}

void sigmoid_gate(const SigmoidGateArgs& args, Stream&) {
  for (int64_t i = 0; i < args.n; ++i) {
    args.x[i] = static_cast<float>(args.x[i] / (1 + std::exp(-double{args.gate[i]})));
  }
}

void add_scaled(const AddScaledArgs& args, Stream&) {
  for (int64_t i = 0; i < args.n; ++i) args.x[i] = std::fma(args.scale, args.y[i], args.x[i]);
}

}  // namespace sala::reference
