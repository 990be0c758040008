#include "native/model.h"

#include <algorithm>
#include <cmath>

#include "native/layers/layers.h"
#include "native/layers/linear.h"

namespace sala {

float logit_scale(const ModelConfig& config, double n_seen) {
  if (!config.attn_logit_log_scale) return 1.0f;
  const auto& [offset, from] = *config.attn_logit_log_scale;
  return float(std::max(1.0, std::log(n_seen + offset) / std::log(from + offset)));
}

void check_token_ids(const ModelConfig& config, const std::vector<int32_t>& ids) {
  for (int32_t id : ids) {
    if (id < 0 || id >= config.vocab_size) {
      fail(ErrorCode::invalid_argument, "expected token ids below ", config.vocab_size, ", found ", id);
    }
  }
}

Forward::Forward(const Model& model, std::vector<SequencePart> parts) : model_(model), parts_(std::move(parts)) {
  const ModelConfig& config = model.config;
  std::vector<int32_t> ids;
  for (const SequencePart& part : parts_) {
    const int n = int(part.tokens.size()), n_past = part.sequence->length();
    if (n > part.sequence->capacity() - n_past) {
      fail(ErrorCode::context_full, "expected at most ", part.sequence->capacity(), " tokens in this context, found ", n_past, " + ", n);
    }
    check_token_ids(config, part.tokens);
    first_row_.push_back(n_rows_);
    n_past_.push_back(n_past);
    n_rows_ += n;
    ids.insert(ids.end(), part.tokens.begin(), part.tokens.end());
  }
  const size_t size = size_t(n_rows_) * config.hidden_size;
  h_ = Aligned<float>(size);
  model.ops.embed({&model.weights.embed_tokens, ids.data(), h_.data(), n_rows_, config.scale_emb}, model.stream);

  const auto tables = [&](bool wanted, int d, Aligned<float>& cos, Aligned<float>& sin) {
    if (!wanted) return;
    cos = Aligned<float>(size_t(n_rows_) * (d / 2));
    sin = Aligned<float>(size_t(n_rows_) * (d / 2));
    for (size_t part = 0; part < parts_.size(); ++part) {
      const size_t at = size_t(first_row_[part]) * (d / 2);
      model.ops.rope_table({n_past_[part], n_tokens(int(part)), d, config.rope_theta, cos.data() + at, sin.data() + at}, model.stream);
    }
  };
  tables(config.lightning_use_rope && config.n_lightning_layers() > 0, config.lightning_head_dim, lightning_cos_, lightning_sin_);
  tables(config.attn_use_rope && config.n_sparse_layers() > 0, config.head_dim, sparse_cos_, sparse_sin_);
}

void Forward::step() {
  CHECK(!done());
  const LayerWeights& weights = model_.weights.layers[layer_];
  attention(weights);
  mlp(weights);
  if (++layer_ < model_.config.num_hidden_layers) return;
  for (size_t part = 0; part < parts_.size(); ++part) parts_[part].sequence->advance(n_tokens(int(part)));
}

void Forward::attention(const LayerWeights& weights) {
  Workspace::Frame memory(model_.workspace);
  if (model_.config.mixer_types[layer_] == MixerType::lightning) {
    lightning_attn_layer(*this, memory, weights);
    ++lightning_layer_;
  } else {
    sparse_attn_layer(*this, memory, weights);
    ++sparse_layer_;
  }
}

void Forward::mlp(const LayerWeights& weights) {
  const ModelConfig& config = model_.config;
  const int n_inner = config.intermediate_size;
  Workspace::Frame memory(model_.workspace);
  float* gate = memory.take<float>(size_t(n_rows_) * n_inner);
  float* up = memory.take<float>(size_t(n_rows_) * n_inner);
  LinearInput input(model_, memory, n_rows_, config.hidden_size, {&weights.gate_proj, &weights.up_proj});
  LinearInput inner(model_, memory, n_rows_, n_inner, {&weights.down_proj});
  model_.ops.rms_norm({.x = h_.data(), .weight = weights.post_attention_layernorm.data(), .out = input.x(), .n_tokens = n_rows_,
                       .hidden_size = config.hidden_size, .eps = config.rms_norm_eps, .rows8 = input.rows8()},
                      model_.stream);
  const Rows8 rows8 = inner.rows8();
  if (rows8.group_size && rows8.group_size % kPanelRows == 0 && !rows8.column_order) {
    input.apply_swiglu({weights.gate_proj, gate}, {weights.up_proj, up}, rows8);
    inner.apply({{weights.down_proj, h_.data(), config.residual_scale()}});
  } else {
    input.apply_swiglu({weights.gate_proj, gate}, {weights.up_proj, up}, {});
    LinearInput(model_, memory, gate, n_rows_, n_inner).apply({{weights.down_proj, h_.data(), config.residual_scale()}});
  }
}

void Forward::logits(int part, int first, int n, float* out) const {
  CHECK(done());
  const ModelConfig& config = model_.config;
  Workspace::Frame memory(model_.workspace);
  const size_t size = size_t(n) * config.hidden_size;
  float* y = memory.take<float>(size);
  model_.ops.rms_norm({hidden(part) + size_t(first) * config.hidden_size, model_.weights.norm.data(), y, n, config.hidden_size,
                       config.rms_norm_eps},
                      model_.stream);
  const float divisor = config.logits_divisor();
  if (divisor != 1.0f) {
    for (size_t i = 0; i < size; ++i) y[i] /= divisor;
  }
  LinearInput(model_, memory, y, n, config.hidden_size).apply(model_.weights.head(), nullptr, out, config.vocab_size);
}

void Forward::queries(int part, int first, int n, float* out) const {
  const ModelConfig& config = model_.config;
  const LayerWeights& weights = model_.weights.layers[layer_];
  Workspace::Frame memory(model_.workspace);
  float* x = memory.take<float>(size_t(n) * config.hidden_size);
  model_.ops.rms_norm({hidden(part) + size_t(first) * config.hidden_size, weights.input_layernorm.data(), x, n, config.hidden_size,
                       config.rms_norm_eps},
                      model_.stream);
  LinearInput(model_, memory, x, n, config.hidden_size).apply({{weights.q_proj, out}});
}

float Forward::logit_scale(int part, int row) const {
  const View* view = parts_[part].view;
  return sala::logit_scale(model_.config, double(n_past_[part]) + row + 1 + (view ? view->n_visible_tokens() : 0));
}

}  // namespace sala
