#include <cmath>
#include <vector>

#include "kernels/reference/reference.h"

namespace sala::reference {

void read_mass(const ReadMassArgs& args, Stream&) {
  const int d = args.head_dim;
  for (int s = 0; s < args.n_spans; ++s) {
    const ReadSpan& span = args.spans[s];
    std::vector<double> logits(span.n_rows);
    for (int r = 0; r < args.n_rows; ++r) {
      const float* q = args.q + int64_t{r} * d;
      float max = -INFINITY;
      for (int i = 0; i < span.n_rows; ++i) {
        double dot = 0;
        for (int c = 0; c < d; ++c) {
          const int64_t at = int64_t{i} * d + c;
          const float* floats = static_cast<const float*>(span.k);
          const int8_t* codes = static_cast<const int8_t*>(span.k);
          dot += double{q[c]} * (span.k_scales ? codes[at] : floats[at]);
        }
        logits[i] = span.k_scales ? span.k_scales[i] * dot : dot;
        max = std::fmax(max, static_cast<float>(logits[i]));
      }
      double sum = 0;
      for (double logit : logits) sum += std::exp(logit - max);
      args.max[int64_t{r} * args.n_spans + s] = max;
      args.sum[int64_t{r} * args.n_spans + s] = static_cast<float>(sum);
    }
  }
}

}  // namespace sala::reference
