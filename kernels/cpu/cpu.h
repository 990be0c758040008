// The operators of one instruction set. Files in kernels/cpu are compiled once per set, with SALA_ISA=portable, avx2,
// avx_vnni, avx512_vnni, neon or neon_i8mm, and its code lies in the namespace of that name. The linker may keep any one copy of an inline
// function, also the one compiled with instructions that this CPU lacks. So these units use no standard algorithms,
// containers or <cmath> functions (builtins instead), and what is inline lies in the set's own namespace.
#pragma once

#include "kernels/ops.h"

#ifndef SALA_ISA
#error "expected -DSALA_ISA=portable, avx2, …"
#endif

// A set may differ from another one, its base, in the 8-bit dot product alone (VNNI from AVX2, i8mm from NEON). Then only what has
// that in it is compiled for the set, and the base's code does all else.
#ifdef SALA_BASE_ISA
#define SALA_SHARED_ISA SALA_BASE_ISA
#else
#define SALA_SHARED_ISA SALA_ISA
#endif

namespace sala::SALA_SHARED_ISA {

void embed(const EmbedArgs& args, Stream& stream);
void rms_norm(const RmsNormArgs& args, Stream& stream);
void rope_table(const RopeTableArgs& args, Stream& stream);
void rope(const RopeArgs& args, Stream& stream);
void sigmoid_gate(const SigmoidGateArgs& args, Stream& stream);
void quantize_rows(const QuantizeRowsArgs& args, Stream& stream);
void lightning_attn(const LightningAttnArgs& args, Stream& stream);
void sparse_attn(const SparseAttnArgs& args, Stream& stream);
void compress_keys(const CompressKeysArgs& args, Stream& stream);
void block_scores(const BlockScoresArgs& args, Stream& stream);
void topk_blocks(const TopkBlocksArgs& args, Stream& stream);
void coarse_keys(const CoarseKeysArgs& args, Stream& stream);
void read_mass(const ReadMassArgs& args, Stream& stream);

}  // namespace sala::SALA_SHARED_ISA

namespace sala::SALA_ISA {

void matmul(const MatmulArgs& args, Stream& stream);
void swiglu_matmul(const SwigluMatmulArgs& args, Stream& stream);
void select_blocks(const SelectBlocksArgs& args, Stream& stream);

extern const Ops table;

}  // namespace sala::SALA_ISA
