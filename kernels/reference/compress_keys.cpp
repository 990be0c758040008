#include <algorithm>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

void compress_keys(const CompressKeysArgs& args, Stream&) {
  for (int g = 0; g < args.n_kv_heads; ++g) {
    for (int j = args.first_window; j < args.first_window + args.n_windows; ++j) {
      const int begin = args.stride * j;
      const int end = std::min(begin + args.kernel, args.n_rows);
      CHECK(begin < end);
      for (int c = 0; c < args.head_dim; ++c) {
        double sum = 0;
        for (int i = begin; i < end; ++i) sum += args.k[g * args.head_stride + int64_t{i} * args.head_dim + c];
        args.out[g * args.out_stride + int64_t{j} * args.head_dim + c] = static_cast<float>(sum / (end - begin));
      }
    }
  }
}

}  // namespace sala::reference
