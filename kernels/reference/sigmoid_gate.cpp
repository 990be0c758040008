#include <cmath>

#include "kernels/reference/reference.h"

namespace sala::reference {

void sigmoid_gate(const SigmoidGateArgs& args, Stream& stream) {
  for (int64_t i = 0; i < int64_t{args.n_rows} * args.n_cols; ++i) {
    args.x[i] = static_cast<float>(args.x[i] / (1 + std::exp(-double{args.gate[i]})));
  }
  round_rows(args.x, args.n_rows, args.n_cols, args.rows8, stream);
}

}  // namespace sala::reference
