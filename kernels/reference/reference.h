// The operators as their specification: scalar, one loop per index of the formula in kernels/ops.h, sums in double
// where that makes them plain. Never optimised; the tests hold every other table against it.
#pragma once

#include "kernels/ops.h"

namespace sala::reference {

void embed(const EmbedArgs& args, Stream& stream);
void rms_norm(const RmsNormArgs& args, Stream& stream);
void rope_table(const RopeTableArgs& args, Stream& stream);
void rope(const RopeArgs& args, Stream& stream);
void sigmoid_gate(const SigmoidGateArgs& args, Stream& stream);
void quantize_rows(const QuantizeRowsArgs& args, Stream& stream);
void matmul(const MatmulArgs& args, Stream& stream);
void swiglu_matmul(const SwigluMatmulArgs& args, Stream& stream);
void lightning_attn(const LightningAttnArgs& args, Stream& stream);
void sparse_attn(const SparseAttnArgs& args, Stream& stream);
void compress_keys(const CompressKeysArgs& args, Stream& stream);
void block_scores(const BlockScoresArgs& args, Stream& stream);
void topk_blocks(const TopkBlocksArgs& args, Stream& stream);
void coarse_keys(const CoarseKeysArgs& args, Stream& stream);
void select_blocks(const SelectBlocksArgs& args, Stream& stream);
void read_mass(const ReadMassArgs& args, Stream& stream);

// x [n_rows, n_cols] as 8-bit rows, where they are wanted.
void round_rows(const float* x, int n_rows, int n_cols, const Rows8& rows8, Stream& stream);

extern const Ops table;

}  // namespace sala::reference
