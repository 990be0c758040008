// Every operator of the model: formula, argument struct with shapes, one entry in `Ops`. No model names, files or logging.
//
// Three rules hold for every entry of every table, and tests check them:
//   · a row's result does not depend on which rows are computed beside it, nor on the number of threads;
//   · all optimised CPU tables (portable, avx2, neon, …) give identical bits: integer dot products, fp32 sums in one fixed
//     8-lane order, explicit FMA, own exp, sin and cos; `reference` is the plain specification and may differ in rounding;
//   · outputs are written in full, inputs are not written, and they alias only where it is said.
// [a, b] is row-major, last index fastest. In attention and selection the optimised tables want head_dim to be a multiple
// of 8.
#pragma once

#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/stream.h"

namespace sala {

// ---- embedding, norms, elementwise ----------------------------------------------------------------------------------

// out[t] = scale * row ids[t] of the matrix.
struct EmbedArgs {
  const Matrix* table;  // [vocab_size, hidden_size], any form but int4
  const int32_t* ids;   // [n_tokens], each within the table
  float* out;           // [n_tokens, hidden_size]
  int n_tokens;
  float scale;
};

// What an operator's rows are as 8-bit rows (QuantizeRowsArgs), written in the same pass. group_size 0: not wanted.
struct Rows8 {
  int group_size = 0;
  const int32_t* column_order = nullptr;
  int8_t* q = nullptr;
  float* scales = nullptr;
  int32_t* sums = nullptr;
};

// out[t] = x[t] * rsqrt(mean(x[t]^2) + eps) * weight, accumulated in fp32; with a gate, that times sigmoid(gate[t]).
struct RmsNormArgs {
  const float* x;       // [n_tokens, hidden_size]
  const float* weight;  // [hidden_size]
  float* out;           // [n_tokens, hidden_size], may alias x; null: only rows8 is wanted
  int n_tokens, hidden_size;
  float eps;
  const float* gate = nullptr;  // [n_tokens, hidden_size]
  Rows8 rows8 = {};
};

// cos and sin of the angle fp32(position) * f_p, f_p = 1 / theta^(2p / head_dim), correctly rounded up to positions of
// 2^21. Exponent, power, quotient and product are each rounded to fp32 first: that is part of the model's definition
// (sala-architecture 3.3).
struct RopeTableArgs {
  int64_t first_position;
  int n_tokens, head_dim;
  float theta;
  float* cos;  // [n_tokens, head_dim / 2]
  float* sin;  // [n_tokens, head_dim / 2]
};

// Half rotation ("NeoX"): x'[c] = x[c] cos − x[c + d/2] sin; x'[c + d/2] = x[c + d/2] cos + x[c] sin. In place.
struct RopeArgs {
  float* x;          // [n_tokens, n_heads, head_dim]
  const float* cos;  // [n_tokens, head_dim / 2]
  const float* sin;
  int n_tokens, n_heads, head_dim;
};

// x = x * sigmoid(gate), in place.
struct SigmoidGateArgs {
  float* x;           // [n_rows, n_cols]
  const float* gate;  // [n_rows, n_cols]
  int n_rows, n_cols;
  Rows8 rows8 = {};
};

// ---- matrix products ------------------------------------------------------------------------------------------------

// 8-bit rows: per row and group, scale = max|x| / 127, q = round-half-even(x / scale) (0 where the group is all zero),
// sum = Σ q. Used for activations and for stored keys and values.
struct QuantizeRowsArgs {
  const float* x;  // [n_rows, n_cols]
  int n_rows, n_cols;
  int group_size;                 // divides n_cols
  const int32_t* column_order;    // column k of q is column column_order[k] of x; null: k
  int8_t* q;                      // [n_rows, n_cols]
  float* scales;                  // [n_rows, n_cols / group_size]
  int32_t* sums;                  // [n_rows, n_cols / group_size], or null
};

// out = x · Wᵀ + bias, or out = out + add_scale · (x · Wᵀ + bias), one FMA. Exactly one of `x` and `q` is set.
//   x: fp32 activations; any form of the weights, dequantised exactly, fp32 sums.
//   q: 8-bit activations, for int4 (activation group = the weights' group_size) and int8 weights (activation group_size
//      given in q_group_size, a divisor of in_features): integer dot product per group, then
//      acc = fma(float(dot), scale_w * scale_x, acc) over the groups in ascending order; int4 zero points enter as −zero·sum,
//      in integers. out = acc + bias.
struct MatmulArgs {
  const Matrix* weight;   // [out_features, in_features]
  const float* bias;      // [out_features] or null
  const float* x;         // [n_tokens, in_features] or null
  const int8_t* q;        // [n_tokens, in_features] or null; columns already in the weight's column_order
  const float* q_scales;  // [n_tokens, in_features / q_group_size]
  const int32_t* q_sums;  // [n_tokens, in_features / q_group_size]
  int q_group_size;
  float* out;             // [n_tokens, out_stride], the first out_features of each row are written
  int64_t out_stride;
  int n_tokens;
  float add_scale = 0;     // 0: out is overwritten
  const MatmulArgs* next = nullptr;  // a further product for the same call: threads share out the panels of all of them
};

// Two products of the same size, then gate.out = silu(gate.out) * up.out, silu(x) = x / (1 + e^−x), or, with rows8, that as 8-bit
// rows alone. rows8.group_size must be a multiple of 16 and rows8.column_order null.
struct SwigluMatmulArgs {
  const MatmulArgs* gate;  // without next; with rows8, gate.out is scratch
  const MatmulArgs* up;    // without next; up.out is scratch
  Rows8 rows8;
};

// ---- lightning attention (linear, with constant decay) -----------------------------------------------------------------

constexpr int kLightningChunk = 64;

// The recurrent state of one layer: S at the last multiple of 64 tokens, and the rows since then. Positions count from the
// sequence's first token, so chunks sit at absolute multiples of 64 however a sequence is split into calls, and a partial
// chunk is finished by later calls from the same start state and rows.
struct LightningState {
  float* s;       // [n_heads, head_dim (k), head_dim (v)]
  float* k_rows;  // [n_kv_heads, 64, head_dim]
  float* v_rows;  // [n_kv_heads, 64, head_dim]
  int n_rows;     // 0 … 63: rows of the chunk that is not complete
};

// With τ the place in the chunk, γ = exp(log_decay[h]) and S₀ the state at the chunk's start:
//   o_τ = scale · (γ^(τ+1) · S₀ᵀ q_τ + Σ_{u ≤ τ} γ^(τ−u) (q_τ · k_u) v_u)
//   S' = γ^64 · S₀ + Σ_u γ^(63−u) k_u v_uᵀ      when the chunk is complete
// Before that, each row of a head of q and k is normed (RmsNormArgs, with q_norm and k_norm as weights) and rotated (RopeArgs), where
// those are given. Query head h reads K/V head h / (n_heads / n_kv_heads). Rows are appended to state.k_rows and v_rows, state.n_rows and s
// are updated. Source: Lightning Attention-2 (Qin et al. 2024), section 3; sala-architecture 3.4.
struct LightningAttnArgs {
  const float* q;          // [n_tokens, n_heads, head_dim]
  const float* k;          // [n_tokens, n_kv_heads, head_dim]
  const float* v;          // [n_tokens, n_kv_heads, head_dim]
  const float* log_decay;  // [n_heads], ≤ 0
  LightningState* state;
  float* out;              // [n_tokens, n_heads, head_dim]
  int n_tokens, n_heads, n_kv_heads, head_dim;
  float scale;
  const float* q_norm = nullptr;  // [head_dim], with k_norm, or null
  const float* k_norm = nullptr;
  float eps = 0;
  const float* cos = nullptr;     // [n_tokens, head_dim / 2], with sin, or null
  const float* sin = nullptr;
  const LightningAttnArgs* next = nullptr;  // another sequence, of the same sizes but for n_tokens, for the same call
};

// ---- sparse attention ---------------------------------------------------------------------------------------------------

constexpr int kKvTile = 64;

// Up to 64 rows of keys and values of one layer, all K/V heads: row i of head g is at g * head_stride + i * head_dim.
struct KvTile {
  const void* k;          // float or int8_t
  const void* v;
  const float* k_scales;  // int8: one per row, row i of head g at g * scale_stride + i; null: float rows
  const float* v_scales;
  int64_t head_stride;
  int64_t scale_stride;
  int n_rows;             // 1 … 64
  int first_row;          // rows before it are hidden (left out of attention)
  int64_t first_position; // place of row 0 in the query's own sequence: a query sees rows up to its own position;
                          // −1: not of that sequence, visible to all
  bool k_turned = false;  // float keys lie as [head_dim, 64]: component c of row i of head g at g * head_stride + c * 64 + i
};

// out[t, h] = softmax over the visible rows of the tiles (q_scale[t] · q[t, h] · k) · v, for query head h over K/V head
// h / (n_heads / n_kv_heads). Tiles are visited in ascending order with a running maximum and sum (Milakov & Gimelshein
// 2018), a tile at a time, so a row's bits depend only on its own tiles.
struct SparseAttnArgs {
  const float* q;          // [n_tokens, n_heads, head_dim]
  const float* q_scale;    // [n_tokens]: 1/√head_dim times the logit scale of this token
  const KvTile* tiles;     // [n_tiles]
  int n_tiles;
  const int32_t* selected; // [n_tokens, n_kv_heads, selected_width] tile indices, ascending, −1 padded; null: all tiles
  int selected_width;
  int64_t first_position;  // of token 0, in its own sequence
  float* out;              // [n_tokens, n_heads, head_dim]
  int n_tokens, n_heads, n_kv_heads, head_dim;
  const KvTile* own_tiles = nullptr;  // [n_own_tiles], which follow: tile n_tiles + i is own_tiles[i]
  int n_own_tiles = 0;
};

// Pooled keys of a sparse layer: out[g, j] = mean of rows stride·j … min(stride·j + kernel, n_rows) − 1 of head g, for windows
// first_window … + n_windows.
struct CompressKeysArgs {
  const float* k;       // row i of head g at g * head_stride + i * head_dim
  int64_t head_stride;
  int n_rows, n_kv_heads, head_dim;
  int kernel, stride;
  int first_window, n_windows;
  float* out;           // window j of head g at g * out_stride + j * head_dim (j absolute)
  int64_t out_stride;
};

// Where component c of row i lies among rows that are kept in turned tiles, [⌈n_rows / 64⌉, head_dim, 64].
inline int64_t turned_index(int64_t i, int c, int head_dim) { return (i / kKvTile * head_dim + c) * kKvTile + i % kKvTile; }

// Scores of key blocks (InfLLM-V2 stage 1; sala-architecture 3.8, design section 4):
//   z1 = q_scale · q · k1, z2 = q_scale · q · k2 over the visible windows; m, l = running max and Σ exp(z2 − m) (of k1's own
//   windows where k2 is null); P[h, j] = exp(z1 − m) / l; A[g, j] = Σ over the heads of the group P, in ascending order;
//   score[t, g, b] = max of A over windows block_begin[b] … block_end[b] − 1 that are visible; none visible: 0 where the
//   range holds any window, −inf where it is empty. Where no window is visible to normalise by, P is 0.
struct BlockScoresArgs {
  const float* q;                // [n_tokens, n_heads, head_dim]
  const float* q_scale;          // [n_tokens]
  const float* k1;               // window j of head g in turned tiles: at g * k1_stride + turned_index(j, c, head_dim)
  const float* k2;               // likewise, or null
  int64_t k1_stride, k2_stride;
  int n_k1, n_k2;
  const int32_t* visible_k1;     // [n_tokens]: windows 0 … n − 1 are visible; null: all
  const int32_t* visible_k2;
  const int32_t* block_begin;    // [n_blocks]
  const int32_t* block_end;      // [n_blocks]
  int n_blocks;
  float* scores;                 // [n_tokens, n_kv_heads, n_blocks]
  int n_tokens, n_heads, n_kv_heads, head_dim;
};

// The k best of the first n_valid[r] scores of each row (−inf may be among them, NaN not), as ascending indices,
// −1 padded; at ties the lower index.
struct TopkBlocksArgs {
  const float* scores;     // [n_rows, n_blocks]
  const int32_t* n_valid;  // [n_rows] or null: n_blocks
  int32_t* selected;       // [n_rows, k]
  int n_rows, n_blocks, k;
};

// Compressed keys of one block of a stored segment and one K/V head, 8 bits each with a scale per window: its own, windows 4b … 4b + 3 of
// its segment as far as there are any. Behind them, where `continued`, lies the last window of the block before, which reaches into it:
// k − head_dim and scales − 1.
constexpr int kBlockSlots = 4;
struct BlockWindows {
  const int8_t* k;      // [n, head_dim]
  const float* scales;  // [n]
  int8_t n;             // 0 … kBlockSlots
  bool continued;
};

// Coarse keys: windows as selection meets them first. What a window's key has beyond the mean of all, in a basis of coarse_dim vectors
// that holds most of how keys differ, in 5 bits with a scale per window: x[i] = Σ basis[c, i] · (scale · k[c] − mean[c]),
// scale' = max|x| / 15, code = round-half-even(x / scale') + 16 (16 where that maximum is below 1e-30).
// A block's own windows are its slots. Eight blocks lie interleaved, a lane each, as two panels of 16 rows of unsigned bytes
// (kernels/matrix.h, int8); the last eight are filled up. A slot without a window has NaN for its scale.
constexpr int kBlockLanes = 8;
constexpr int kCoarseZero = 16;
// Where component c of a slot's key lies, and its scale, among those of one K/V head.
inline int64_t coarse_key_index(int64_t b, int slot, int c, int coarse_dim) {
  return ((b / kBlockLanes * 2 + slot / 2) * (coarse_dim / 4) + c / 4) * 64 + (slot % 2 * kBlockLanes + b % kBlockLanes) * 4 + c % 4;
}
inline int64_t coarse_scale_index(int64_t b, int slot) { return (b / kBlockLanes * kBlockSlots + slot) * kBlockLanes + b % kBlockLanes; }
inline int64_t n_coarse_slots(int n_blocks) { return int64_t{(n_blocks + kBlockLanes - 1) / kBlockLanes} * kBlockLanes * kBlockSlots; }
struct CoarseKeysArgs {
  const BlockWindows* windows;  // [n_kv_heads, n_blocks]
  const float* basis;           // [n_kv_heads, head_dim, coarse_dim]
  const float* mean;            // [n_kv_heads, head_dim]
  uint8_t* keys;                // [n_kv_heads, n_coarse_slots · coarse_dim], see coarse_key_index
  float* scales;                // [n_kv_heads, n_coarse_slots], see coarse_scale_index
  int n_blocks, n_kv_heads, head_dim, coarse_dim;
};

// The k best blocks of a scope that is stored in 8 bit (design section 4), as ascending indices, −1 padded; at ties the lower index.
// Coarse keys are met first, and only the windows of the best blocks by them, the candidates, as they are stored. Queries are rounded,
// so that their products with keys are integers and the same everywhere:
//   windows   s[h] = max|q[h]| / 32512 (1 where that maximum is below 1e-30), q16 = round-half-even(q / s),
//             z[h, j] = (q_scale · s[h]) · (scale[j] · Σ q16[h] · k[j])
//   coarse    x[h, i] = Σ q[h, c] · basis[c, i], s'[h] = max|x[h]| / 63 (likewise), q7 = round-half-even(x / s'),
//             y[h, j] = (q_scale · s'[h]) · (scale'[j] · Σ q7[h] · (code[j] − 16)) + q_scale · Σ q[h, c] · mean[c]
//   u[b] = Σ over the heads of the group exp(max y[h, j] over the own windows of b and the last slot of block b − 1) / Σ exp(y[h, j]) over
//          all windows
//   candidates: the n_select_candidates blocks of the largest u, at ties the lower index
//   l[h] = Σ over the candidates' own windows exp(z[h, j]) + Σ over those of the other blocks exp(y[h, j])
//   A[j] = Σ over the heads exp(z[h, j]) / l[h]; score[b] = max of A over the windows of a candidate, its own and the one that reaches into it
// Weights exp(y) that are only summed may be off by 4 % where they are not in the mean: sums over many windows are off by some thousandths.
// What u and l take of a block from the coarse keys has 8 bits of mantissa.
// Where all blocks are candidates this is the score of block_scores with k2 = null and all windows visible, and what is coarse is not read.
struct SelectBlocksArgs {
  const float* q;               // [n_tokens, n_heads, head_dim]
  const float* q_scale;         // [n_tokens]
  const BlockWindows* windows;  // [n_kv_heads, n_blocks]
  CoarseKeysArgs coarse;        // of the same windows
  int n_blocks;
  int32_t* selected;            // [n_tokens, n_kv_heads, k]
  int k;
  float* memory;                // [select_blocks_memory], scratch
  int n_tokens, n_heads, n_kv_heads, head_dim;
};
// 12 for each of the k and, of many blocks, a 16th.
inline int n_select_candidates(int n_blocks, int k) {
  const int64_t n = int64_t{12} * k > n_blocks / 16 ? int64_t{12} * k : n_blocks / 16;
  return static_cast<int>(n < n_blocks ? n : n_blocks);
}
constexpr int kSelectTokens = 8;         // that are ranked at a time
constexpr int kSelectChunkBlocks = 64;   // whose logits stay in L1 until their maximum is known
constexpr int kSelectSectionChunks = 8;  // that one task ranks: some 10 µs of work, since threads wait for the last one
inline int64_t n_select_chunks(int n_blocks) { return (n_blocks + kSelectChunkBlocks - 1) / kSelectChunkBlocks; }
inline int64_t select_blocks_memory(int n_tokens, int n_heads, int n_blocks) {
  const int64_t per_head = n_select_chunks(n_blocks) * (kSelectChunkBlocks + 2);
  return int64_t{n_tokens < kSelectTokens ? n_tokens : kSelectTokens} * n_heads * per_head;
}

// Keys of one K/V head of one segment, for reading.
struct ReadSpan {
  const void* k;          // [n_rows, head_dim] float or int8_t
  const float* k_scales;  // [n_rows], or null: float rows
  int n_rows;
};

// For each query row r and span s: max[r, s] = max over the span's rows of q[r] · k, sum[r, s] = Σ exp(q[r] · k − max[r, s]).
// An empty span gives −inf and 0.
struct ReadMassArgs {
  const float* q;         // [n_rows, head_dim], already scaled
  const ReadSpan* spans;  // [n_spans]
  float* max;             // [n_rows, n_spans]
  float* sum;             // [n_rows, n_spans]
  int n_rows, n_spans, head_dim;
};

// ---- the table ---------------------------------------------------------------------------------------------------------

// One table per backend; every entry is filled, so a caller never asks "does it exist?".
struct Ops {
  const char* name;    // "reference", "portable", "avx2", "avx_vnni", "avx512_vnni", "neon", "neon_i8mm"
  const char* family;  // "reference", "cpu": equal bits are promised within a family
  void (*embed)(const EmbedArgs&, Stream&);
  void (*rms_norm)(const RmsNormArgs&, Stream&);
  void (*rope_table)(const RopeTableArgs&, Stream&);
  void (*rope)(const RopeArgs&, Stream&);
  void (*sigmoid_gate)(const SigmoidGateArgs&, Stream&);
  void (*quantize_rows)(const QuantizeRowsArgs&, Stream&);
  void (*matmul)(const MatmulArgs&, Stream&);
  void (*swiglu_matmul)(const SwigluMatmulArgs&, Stream&);
  void (*lightning_attn)(const LightningAttnArgs&, Stream&);
  void (*sparse_attn)(const SparseAttnArgs&, Stream&);
  void (*compress_keys)(const CompressKeysArgs&, Stream&);
  void (*block_scores)(const BlockScoresArgs&, Stream&);
  void (*topk_blocks)(const TopkBlocksArgs&, Stream&);
  void (*coarse_keys)(const CoarseKeysArgs&, Stream&);
  void (*select_blocks)(const SelectBlocksArgs&, Stream&);
  void (*read_mass)(const ReadMassArgs&, Stream&);
};

}  // namespace sala
