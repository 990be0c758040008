// Lightning attention layer: projections, QK norm, rotation, recurrence, output norm and gate (sala-architecture 3.3 – 3.5).
#include <vector>

#include "native/layers/layers.h"
#include "native/layers/linear.h"

namespace sala {

void lightning_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights) {
  const Model& model = forward.model_;
  const ModelConfig& config = model.config;
  const int n = forward.n_rows_, d = config.lightning_head_dim;
  const int q_size = config.lightning_nh * d, kv_size = config.lightning_nkv * d;
  float* q = memory.take<float>(size_t(n) * q_size);
  float* k = memory.take<float>(size_t(n) * kv_size);
  float* v = memory.take<float>(size_t(n) * kv_size);
  float* gate = config.use_output_gate ? memory.take<float>(size_t(n) * q_size) : nullptr;
  float* o = memory.take<float>(size_t(n) * q_size);

  LinearInput input = config.use_output_gate
                          ? LinearInput(model, memory, n, config.hidden_size, {&weights.q_proj, &weights.k_proj, &weights.v_proj, &weights.z_proj})
                          : LinearInput(model, memory, n, config.hidden_size, {&weights.q_proj, &weights.k_proj, &weights.v_proj});
  model.ops.rms_norm({.x = forward.h_.data(), .weight = weights.input_layernorm.data(), .out = input.x(), .n_tokens = n,
                      .hidden_size = config.hidden_size, .eps = config.rms_norm_eps, .rows8 = input.rows8()},
                     model.stream);
  if (config.use_output_gate) input.apply({{weights.q_proj, q}, {weights.k_proj, k}, {weights.v_proj, v}, {weights.z_proj, gate}});
  else input.apply({{weights.q_proj, q}, {weights.k_proj, k}, {weights.v_proj, v}});

  const size_t n_parts = forward.parts_.size();
  std::vector<LightningState> states(n_parts);
  std::vector<LightningAttnArgs> args(n_parts);
  for (size_t part = 0; part < n_parts; ++part) {
    const size_t row = forward.first_row_[part];
    states[part] = forward.parts_[part].sequence->recurrence(forward.lightning_layer_);
    args[part] = {.q = q + row * q_size, .k = k + row * kv_size, .v = v + row * kv_size, .log_decay = weights.log_decay.data(),
                  .state = &states[part], .out = o + row * q_size, .n_tokens = forward.n_tokens(int(part)), .n_heads = config.lightning_nh,
                  .n_kv_heads = config.lightning_nkv, .head_dim = d, .scale = config.lightning_scale};
    if (config.qk_norm) {
      args[part].q_norm = weights.q_norm.data();
      args[part].k_norm = weights.k_norm.data();
      args[part].eps = config.rms_norm_eps;
    }
    if (config.lightning_use_rope) {
      args[part].cos = forward.lightning_cos_.data() + row * (d / 2);
      args[part].sin = forward.lightning_sin_.data() + row * (d / 2);
    }
    if (part > 0) args[part - 1].next = &args[part];
  }
  model.ops.lightning_attn(args.front(), model.stream);

  const LinearInput::Product product{weights.o_proj, forward.h_.data(), config.residual_scale()};
  if (config.use_output_norm) {
    LinearInput output(model, memory, n, q_size, {&weights.o_proj});
    // One norm over all heads together, not one a head.
    model.ops.rms_norm({.x = o, .weight = weights.o_norm.data(), .out = output.x(), .n_tokens = n, .hidden_size = q_size,
                        .eps = config.rms_norm_eps, .gate = gate, .rows8 = output.rows8()},
                       model.stream);
    output.apply({product});
    return;
  }
  LinearInput gated(model, memory, o, n, q_size);
  if (config.use_output_gate) model.ops.sigmoid_gate({o, gate, n, q_size, gated.rows8_for(weights.o_proj)}, model.stream);
  gated.apply({product});
}

}  // namespace sala
