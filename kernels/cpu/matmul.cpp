#include "kernels/cpu/matmul.h"

namespace sala::SALA_ISA {

void matmul(const MatmulArgs& args, Stream& stream) {
  int n_panels = 0;
  for (const MatmulArgs* product = &args; product; product = product->next) {
    if (product->n_tokens == 0) continue;
    reference::check_matmul(*product);
    n_panels += product->weight->n_panels();
  }
  // The panels of all products are counted through, so that threads wait for each other once.
  stream.parallel_for(n_panels, 1, [&](int begin, int end) {
    int first = 0;
    for (const MatmulArgs* product = &args; product && first < end; product = product->next) {
      if (product->n_tokens == 0) continue;
      const int n = product->weight->n_panels();
      const int from = begin > first ? begin - first : 0, to = smaller(end - first, n);
      first += n;
      if (from >= to) continue;
      if (product->q) panels_q(*product, from, to);
      else panels_x(*product, from, to);
    }
  });
}

}  // namespace sala::SALA_ISA
