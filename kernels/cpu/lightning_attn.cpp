// Chunks sit at absolute multiples of 64. Within a chunk an output is q·S₀, then a chain of FMAs over u = 0 … τ, and
// the state is advanced from all 64 rows at once: nothing depends on how the rows came in calls.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

// Rows of q · kᵀ computed over one range of columns: small enough that the upper triangle is mostly left out.
constexpr int kTriangleRows = 16;

// powers[kTile − i] = γ^i for i = 0 … 64, so that γ^(τ − u) ascends with u.
void decay_powers(float log_decay, float (&powers)[kTile + kLanes]) {
  for (int i = 0; i <= kTile; i += kLanes) {
    float exponents[kLanes];
    for (int j = 0; j < kLanes; ++j) exponents[j] = log_decay * static_cast<float>(kTile - i - j);
    exp(F32x8::load(exponents)).store(powers + i);
  }
}

void scale_row(float* x, float factor, int n) {
  for (int c = 0; c < n; c += kLanes) (F32x8::load(x + c) * F32x8::set1(factor)).store(x + c);
}

// Outputs of rows begin … end − 1 of the chunk for query head h. weights: [64, 64] scratch.
void chunk_outputs(const LightningAttnArgs& args, int h, int first_token, int begin, int end, const float* turned_k,
                   const float* v_rows, const float* powers, float* weights) {
  const int d = args.head_dim;
  const int64_t stride = int64_t{args.n_heads} * d;
  const int n_rows = end - begin;
  const float* q = args.q + first_token * stride + int64_t{h} * d;
  float* out = args.out + first_token * stride + int64_t{h} * d;

  product<false>({q, stride, args.state->s + int64_t{h} * d * d, d, out, stride, n_rows, d, d});
  for (int r = 0; r < n_rows; ++r) scale_row(out + r * stride, powers[kTile - (begin + r + 1)], d);

  for (int r = 0; r < n_rows; r += kTriangleRows) {
    const int n = n_rows - r < kTriangleRows ? n_rows - r : kTriangleRows;
    const int n_columns = (begin + r + n + kLanes - 1) / kLanes * kLanes;
    product<false>({q + r * stride, stride, turned_k, kTile, weights + r * kTile, kTile, n, d, n_columns});
    for (int i = r; i < r + n; ++i) {
      const int tau = begin + i;
      float* row = weights + i * kTile;
      for (int u = 0; u <= tau; u += kLanes) {
        // The last vector also takes what lies behind γ^0; those products are not used.
        (F32x8::load(row + u) * F32x8::load(powers + kTile - tau + u)).store(row + u);
      }
    }
  }
  product<true>({weights, kTile, v_rows, d, out, stride, n_rows, begin + 1, d, /*step=*/1});
  for (int r = 0; r < n_rows; ++r) scale_row(out + r * stride, args.scale, d);
}

// S = γ^64 · S + Σ_u γ^(63 − u) k_u v_uᵀ. decayed_k: [head_dim, 64] scratch.
void advance_state(float* s, int d, const float* turned_k, const float* v_rows, const float* powers, float* decayed_k) {
  for (int e = 0; e < d; ++e) {
    for (int u = 0; u < kTile; u += kLanes) {
      (F32x8::load(turned_k + e * kTile + u) * F32x8::load(powers + 1 + u)).store(decayed_k + e * kTile + u);
    }
    scale_row(s + int64_t{e} * d, powers[0], d);
  }
  product<true>({decayed_k, kTile, v_rows, d, s, d, d, kTile, d});
}

}  // namespace

void lightning_attn(const LightningAttnArgs& args, Stream& stream) {
  const int d = args.head_dim;
  const int n_per_group = args.n_heads / args.n_kv_heads;
  LightningState& state = *args.state;
  CHECK(d % kLanes == 0 && args.n_heads % args.n_kv_heads == 0 && state.n_rows >= 0 && state.n_rows < kTile);

  // K/V heads share nothing, so each goes through all chunks by itself.
  stream.parallel_for(args.n_kv_heads, 1, [&](int first_head, int last_head) {
    float* turned_k = static_cast<float*>(Stream::scratch(sizeof(float) * kTile * (2 * d + kTile)));
    float* decayed_k = turned_k + kTile * d;
    float* weights = decayed_k + kTile * d;
    for (int g = first_head; g < last_head; ++g) {
      float* k_rows = state.k_rows + int64_t{g} * kTile * d;
      float* v_rows = state.v_rows + int64_t{g} * kTile * d;
      int begin = state.n_rows;
      for (int t = 0, n; t < args.n_tokens; t += n) {
        n = args.n_tokens - t < kTile - begin ? args.n_tokens - t : kTile - begin;
        const int end = begin + n;
        for (int i = 0; i < n; ++i) {
          const int64_t source = (int64_t{t + i} * args.n_kv_heads + g) * d;
          std::memcpy(k_rows + (begin + i) * d, args.k + source, sizeof(float) * d);
          std::memcpy(v_rows + (begin + i) * d, args.v + source, sizeof(float) * d);
        }
        transpose_tile(k_rows, end, d, turned_k);
        for (int h = g * n_per_group; h < (g + 1) * n_per_group; ++h) {
          float powers[kTile + kLanes];
          decay_powers(args.log_decay[h], powers);
          chunk_outputs(args, h, t, begin, end, turned_k, v_rows, powers, weights);
          if (end == kTile) advance_state(state.s + int64_t{h} * d * d, d, turned_k, v_rows, powers, decayed_k);
        }
        begin = end % kTile;
      }
    }
  });
  state.n_rows = (state.n_rows + args.n_tokens) % kTile;
}

}  // namespace sala::SALA_ISA
