// In the order of Ops.
#include "kernels/reference/reference.h"

namespace sala::reference {

const Ops table = {
    "reference", "reference", embed, rms_norm, rope_table, rope, sigmoid_gate,
    quantize_rows, matmul, swiglu_matmul,
    lightning_attn, sparse_attn, compress_keys, block_scores, topk_blocks, coarse_keys, select_blocks, read_mass,
};

}  // namespace sala::reference
