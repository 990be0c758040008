#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/reference/reference.h"

namespace sala::reference {

void topk_blocks(const TopkBlocksArgs& args, Stream&) {
  for (int r = 0; r < args.n_rows; ++r) {
    const float* scores = args.scores + int64_t{r} * args.n_blocks;
    int32_t* selected = args.selected + int64_t{r} * args.k;
    const int n_valid = args.n_valid ? args.n_valid[r] : args.n_blocks;
    std::vector<int32_t> order(n_valid);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
    const int n_selected = std::min(args.k, n_valid);
    std::sort(order.begin(), order.begin() + n_selected);
    std::copy_n(order.begin(), n_selected, selected);
    std::fill(selected + n_selected, selected + args.k, -1);
  }
}

}  // namespace sala::reference
