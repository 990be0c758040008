#include <cmath>

#include "kernels/reference/reference.h"

namespace sala::reference {

void rms_norm(const RmsNormArgs& args, Stream&) {
  for (int t = 0; t < args.n_tokens; ++t) {
    const float* x = args.x + int64_t{t} * args.hidden_size;
    float* out = args.out + int64_t{t} * args.hidden_size;
    double squares = 0;
    for (int c = 0; c < args.hidden_size; ++c) squares += double{x[c]} * x[c];
    const double factor = 1 / std::sqrt(squares / args.hidden_size + args.eps);
    for (int c = 0; c < args.hidden_size; ++c) out[c] = static_cast<float>(x[c] * factor * args.weight[c]);
  }
}

}  // namespace sala::reference
