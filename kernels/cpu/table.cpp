// In the order of Ops.
#include "kernels/cpu/cpu.h"

#define SALA_TEXT_OF(name) #name
#define SALA_TEXT(name) SALA_TEXT_OF(name)

namespace sala::SALA_ISA {

const Ops table = {
    SALA_TEXT(SALA_ISA), "cpu", embed, rms_norm, rope_table, rope, sigmoid_gate,
    quantize_rows, matmul, swiglu_matmul,
    lightning_attn, sparse_attn, compress_keys, block_scores, topk_blocks, read_mass,
};

}  // namespace sala::SALA_ISA
