#include "kernels/cpu/best_k.h"
#include "kernels/cpu/cpu.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

void topk_blocks(const TopkBlocksArgs& args, Stream& stream) {
  const int grain = 1 + 2048 / (args.n_blocks + 1);
  stream.parallel_for(args.n_rows, grain, [&](int first_row, int last_row) {
    int32_t* keys = static_cast<int32_t*>(Stream::scratch(sizeof(int32_t) * args.n_blocks));
    for (int r = first_row; r < last_row; ++r) {
      const int n_valid = args.n_valid ? args.n_valid[r] : args.n_blocks;
      CHECK(n_valid >= 0 && n_valid <= args.n_blocks);
      select_best(args.scores + int64_t{r} * args.n_blocks, n_valid, args.k, keys, args.selected + int64_t{r} * args.k);
    }
  });
}

}  // namespace sala::SALA_ISA
