// In the order of Ops.
#include "kernels/cpu/cpu.h"

#define SALA_TEXT_OF(name) #name
#define SALA_TEXT(name) SALA_TEXT_OF(name)

namespace sala::SALA_ISA {

namespace shared = SALA_SHARED_ISA;

const Ops table = {
    SALA_TEXT(SALA_ISA), "cpu", shared::embed, shared::rms_norm, shared::rope_table, shared::rope, shared::sigmoid_gate,
    shared::quantize_rows, matmul, swiglu_matmul,
    shared::lightning_attn, shared::sparse_attn, shared::compress_keys, shared::block_scores, shared::topk_blocks,
    shared::coarse_keys, select_blocks, shared::read_mass,
};

}  // namespace sala::SALA_ISA
