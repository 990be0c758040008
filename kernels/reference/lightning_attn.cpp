#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

namespace {

// Rows [n_tokens, n_heads, head_dim], normed and rotated as the arguments say.
std::vector<float> prepared(const LightningAttnArgs& args, const float* rows, int n_heads, const float* norm, Stream& stream) {
  std::vector<float> x(rows, rows + static_cast<size_t>(args.n_tokens) * n_heads * args.head_dim);
  if (norm) rms_norm({x.data(), norm, x.data(), args.n_tokens * n_heads, args.head_dim, args.eps}, stream);
  if (args.cos) rope({x.data(), args.cos, args.sin, args.n_tokens, n_heads, args.head_dim}, stream);
  return x;
}

}  // namespace

void lightning_attn(const LightningAttnArgs& args, Stream& stream) {
  const std::vector<float> all_q = prepared(args, args.q, args.n_heads, args.q_norm, stream);
  const std::vector<float> all_k = prepared(args, args.k, args.n_kv_heads, args.k_norm, stream);
  const int d = args.head_dim;
  const int n_per_group = args.n_heads / args.n_kv_heads;
  LightningState& state = *args.state;
  CHECK(args.n_heads % args.n_kv_heads == 0 && state.n_rows >= 0 && state.n_rows < kLightningChunk);
  const auto row = [&](float* rows, int head, int u) { return rows + (int64_t{head} * kLightningChunk + u) * d; };
  const auto gamma_to = [&](int head, int exponent) { return std::exp(double{args.log_decay[head]} * exponent); };
  std::vector<double> o(d);

  for (int t = 0; t < args.n_tokens; ++t) {
    const int tau = state.n_rows;
    for (int g = 0; g < args.n_kv_heads; ++g) {
      const int64_t source = (int64_t{t} * args.n_kv_heads + g) * d;
      std::memcpy(row(state.k_rows, g, tau), all_k.data() + source, d * sizeof(float));
      std::memcpy(row(state.v_rows, g, tau), args.v + source, d * sizeof(float));
    }
    for (int h = 0; h < args.n_heads; ++h) {
      const int g = h / n_per_group;
      const float* q = all_q.data() + (int64_t{t} * args.n_heads + h) * d;
      const float* s = state.s + int64_t{h} * d * d;
      for (int c = 0; c < d; ++c) {
        o[c] = 0;
        for (int e = 0; e < d; ++e) o[c] += double{s[e * d + c]} * q[e];
        o[c] *= gamma_to(h, tau + 1);
      }
      for (int u = 0; u <= tau; ++u) {
        const float *k = row(state.k_rows, g, u), *v = row(state.v_rows, g, u);
        double dot = 0;
        for (int e = 0; e < d; ++e) dot += double{q[e]} * k[e];
        for (int c = 0; c < d; ++c) o[c] += gamma_to(h, tau - u) * dot * v[c];
      }
      float* out = args.out + (int64_t{t} * args.n_heads + h) * d;
      for (int c = 0; c < d; ++c) out[c] = static_cast<float>(args.scale * o[c]);
    }

    if (++state.n_rows < kLightningChunk) continue;
    for (int h = 0; h < args.n_heads; ++h) {
      const int g = h / n_per_group;
      float* s = state.s + int64_t{h} * d * d;
      for (int e = 0; e < d; ++e) {
        for (int c = 0; c < d; ++c) {
          double next = gamma_to(h, kLightningChunk) * s[e * d + c];
          for (int u = 0; u < kLightningChunk; ++u) {
            next += gamma_to(h, kLightningChunk - 1 - u) * row(state.k_rows, g, u)[e] * row(state.v_rows, g, u)[c];
          }
          s[e * d + c] = static_cast<float>(next);
        }
      }
    }
    state.n_rows = 0;
  }
  if (args.next) lightning_attn(*args.next, stream);
}

}  // namespace sala::reference
