// Lightning attention layer: projections, QK norm, rotation, recurrence, output norm and gate (sala-architecture 3.3 – 3.5).
#include "native/layers/layers.h"
#include "native/layers/linear.h"

namespace sala {

void lightning_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights, const float* x, float* out) {
  const Model& model = forward.model_;
  const ModelConfig& config = model.config;
  const int n = forward.n_rows_, d = config.lightning_head_dim;
  const int q_size = config.lightning_nh * d, kv_size = config.lightning_nkv * d;
  float* q = memory.take<float>(size_t(n) * q_size);
  float* k = memory.take<float>(size_t(n) * kv_size);
  float* v = memory.take<float>(size_t(n) * kv_size);
  float* gate = memory.take<float>(config.use_output_gate ? size_t(n) * q_size : 0);
  float* o = memory.take<float>(size_t(n) * q_size);

  LinearInput input(model, memory, x, n, config.hidden_size);
  if (config.use_output_gate) input.apply({{weights.q_proj, q}, {weights.k_proj, k}, {weights.v_proj, v}, {weights.z_proj, gate}});
  else input.apply({{weights.q_proj, q}, {weights.k_proj, k}, {weights.v_proj, v}});
  if (config.qk_norm) {
    model.ops.rms_norm({q, weights.q_norm.data(), q, n * config.lightning_nh, d, config.rms_norm_eps}, model.stream);
    model.ops.rms_norm({k, weights.k_norm.data(), k, n * config.lightning_nkv, d, config.rms_norm_eps}, model.stream);
  }
  if (config.lightning_use_rope) {
    const float* cos = forward.lightning_cos_.data();
    const float* sin = forward.lightning_sin_.data();
    model.ops.rope({q, cos, sin, n, config.lightning_nh, d}, model.stream);
    model.ops.rope({k, cos, sin, n, config.lightning_nkv, d}, model.stream);
  }
  for (size_t part = 0; part < forward.parts_.size(); ++part) {
    const size_t row = forward.first_row_[part];
    LightningState state = forward.parts_[part].sequence->recurrence(forward.lightning_layer_);
    model.ops.lightning_attn({.q = q + row * q_size, .k = k + row * kv_size, .v = v + row * kv_size,
                              .log_decay = weights.log_decay.data(), .state = &state, .out = o + row * q_size,
                              .n_tokens = forward.n_tokens(int(part)), .n_heads = config.lightning_nh, .n_kv_heads = config.lightning_nkv,
                              .head_dim = d, .scale = config.lightning_scale},
                             model.stream);
  }
  if (config.use_output_norm) {
    // One norm over all heads together, not one a head.
    model.ops.rms_norm({o, weights.o_norm.data(), o, n, q_size, config.rms_norm_eps}, model.stream);
  }
  if (config.use_output_gate) {
    model.ops.sigmoid_gate({o, gate, int64_t(n) * q_size}, model.stream);
  }
  LinearInput(model, memory, o, n, q_size).apply({{weights.o_proj, out}});
}

}  // namespace sala
