#include <cmath>
#include <vector>

#include "kernels/reference/reference.h"

namespace sala::reference {

void rms_norm(const RmsNormArgs& args, Stream& stream) {
  std::vector<float> unwanted(args.out ? 0 : static_cast<size_t>(args.n_tokens) * args.hidden_size);
  float* all = args.out ? args.out : unwanted.data();
  for (int t = 0; t < args.n_tokens; ++t) {
    const float* x = args.x + int64_t{t} * args.hidden_size;
    float* out = all + int64_t{t} * args.hidden_size;
    double squares = 0;
    for (int c = 0; c < args.hidden_size; ++c) squares += double{x[c]} * x[c];
    const double factor = 1 / std::sqrt(squares / args.hidden_size + args.eps);
    for (int c = 0; c < args.hidden_size; ++c) out[c] = static_cast<float>(x[c] * factor * args.weight[c]);
  }
  if (args.gate) sigmoid_gate({all, args.gate, args.n_tokens, args.hidden_size}, stream);
  round_rows(all, args.n_tokens, args.hidden_size, args.rows8, stream);
}

}  // namespace sala::reference
