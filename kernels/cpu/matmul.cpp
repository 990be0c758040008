#include "kernels/cpu/matmul.h"

namespace sala::SALA_ISA {

void matmul(const MatmulArgs& args, Stream& stream) {
  if (args.n_tokens == 0) return;
  reference::check_matmul(args);
  if (args.q) matmul_q(args, stream);
  else matmul_x(args, stream);
}

}  // namespace sala::SALA_ISA
