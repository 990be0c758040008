// Chunks sit at absolute multiples of 64. Within a chunk an output is q·S₀, then a chain of FMAs over u = 0 … τ, and
// the state is advanced from all 64 rows at once: nothing depends on how the rows came in calls.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/rows.h"
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

// A head's row of token t as attention takes it, to `to`.
void prepare_row(const LightningAttnArgs& args, const float* from, const float* norm, int64_t t, float* to) {
  const int d = args.head_dim, half = d / 2;
  if (norm) norm_row(from, norm, d, args.eps, to);
  else std::memcpy(to, from, sizeof(float) * d);
  if (args.cos) rotate_head(to, args.cos + t * half, args.sin + t * half, half);
}

// Outputs of rows begin … end − 1 of the chunk for query head h. weights: [64, 64], q: [64, head_dim] scratch.
void chunk_outputs(const LightningAttnArgs& args, int h, int first_token, int begin, int end, const float* turned_k,
                   const float* v_rows, const float* powers, float* weights, float* q) {
  const int d = args.head_dim;
  const int64_t stride = int64_t{args.n_heads} * d;
  const int n_rows = end - begin;
  for (int r = 0; r < n_rows; ++r) {
    const int64_t t = first_token + r;
    prepare_row(args, args.q + t * stride + int64_t{h} * d, args.q_norm, t, q + r * d);
  }
  float* out = args.out + first_token * stride + int64_t{h} * d;

  product<false>({q, d, args.state->s + int64_t{h} * d * d, d, out, stride, n_rows, d, d});
  for (int r = 0; r < n_rows; ++r) scale_row(out + r * stride, powers[kTile - (begin + r + 1)], d);

  for (int r = 0; r < n_rows; r += kTriangleRows) {
    const int n = n_rows - r < kTriangleRows ? n_rows - r : kTriangleRows;
    const int n_columns = (begin + r + n + kLanes - 1) / kLanes * kLanes;
    product<false>({q + r * d, d, turned_k, kTile, weights + r * kTile, kTile, n, d, n_columns});
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

// K/V head g of one sequence, and its query heads.
void run_head(const LightningAttnArgs& args, int g, float* turned_k, float* decayed_k, float* weights, float* q) {
  const int d = args.head_dim, n_per_group = args.n_heads / args.n_kv_heads;
  const LightningState& state = *args.state;
  float* k_rows = state.k_rows + int64_t{g} * kTile * d;
  float* v_rows = state.v_rows + int64_t{g} * kTile * d;
  int begin = state.n_rows;
  for (int t = 0, n; t < args.n_tokens; t += n) {
    n = args.n_tokens - t < kTile - begin ? args.n_tokens - t : kTile - begin;
    const int end = begin + n;
    for (int i = 0; i < n; ++i) {
      const int64_t source = (int64_t{t + i} * args.n_kv_heads + g) * d;
      prepare_row(args, args.k + source, args.k_norm, t + i, k_rows + (begin + i) * d);
      std::memcpy(v_rows + (begin + i) * d, args.v + source, sizeof(float) * d);
    }
    transpose_tile(k_rows, end, d, turned_k);
    for (int h = g * n_per_group; h < (g + 1) * n_per_group; ++h) {
      float powers[kTile + kLanes];
      decay_powers(args.log_decay[h], powers);
      chunk_outputs(args, h, t, begin, end, turned_k, v_rows, powers, weights, q);
      if (end == kTile) advance_state(state.s + int64_t{h} * d * d, d, turned_k, v_rows, powers, decayed_k);
    }
    begin = end % kTile;
  }
}

}  // namespace

void lightning_attn(const LightningAttnArgs& args, Stream& stream) {
  const int d = args.head_dim;
  int n_sequences = 0;
  for (const LightningAttnArgs* one = &args; one; one = one->next, ++n_sequences) {
    CHECK(d % kLanes == 0 && one->head_dim == d && one->n_heads == args.n_heads && one->n_kv_heads == args.n_kv_heads);
    CHECK(one->n_heads % one->n_kv_heads == 0 && one->state->n_rows >= 0 && one->state->n_rows < kTile);
  }

  // K/V heads share nothing, so each goes through all chunks by itself.
  stream.parallel_for(n_sequences * args.n_kv_heads, 1, [&](int first_head, int last_head) {
    float* turned_k = static_cast<float*>(Stream::scratch(sizeof(float) * kTile * (3 * d + kTile)));
    float* decayed_k = turned_k + kTile * d;
    float* weights = decayed_k + kTile * d;
    float* q = weights + kTile * kTile;
    const LightningAttnArgs* one = &args;
    for (int i = 0; i < first_head / args.n_kv_heads; ++i) one = one->next;
    for (int head = first_head; head < last_head; ++head) {
      if (head > first_head && head % args.n_kv_heads == 0) one = one->next;
      run_head(*one, head % args.n_kv_heads, turned_k, decayed_k, weights, q);
    }
  });
  for (const LightningAttnArgs* one = &args; one; one = one->next) {
    one->state->n_rows = (one->state->n_rows + one->n_tokens) % kTile;
  }
}

}  // namespace sala::SALA_ISA
