// config.json of a model folder → ModelConfig, under the checkpoint's own names. Refuses what we do not implement, by
// name. Not here: tensors (weights.h), the tokenizer, sala.json.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sala {

// What mixes tokens in a layer. Spelled in config.json: "lightning-attn", "lightning_attn", "lightning" | "minicpm4",
// "minicpm", "standard", "attention", "attn".
enum class MixerType { lightning, sparse };

// InfLLM-V2 block selection (sala-architecture 3.7–3.9).
struct SparseConfig {
  int kernel_size = 32;  // tokens pooled into one compressed key
  int kernel_stride = 16;
  int block_size = 64;  // kKvTile
  int init_blocks = 0;  // leading blocks that are always attended to
  int window_size = 0;  // tokens before the query that are always attended to, a multiple of block_size
  int topk = 0;
  bool use_nope = false;  // score blocks with queries and keys before rotation
  int64_t dense_len = 0;  // sequences shorter than this are attended to densely

  // Blocks that a query attends to, initial and local ones included.
  int n_selected() const { return topk + window_size / block_size; }
};

// Sparse layers multiply the query by max(1, ln(t + offset) / ln(from + offset)), t = tokens it could see.
struct AttnLogitLogScale {
  double offset = 0;
  double from = 0;
};

// gptq stores zero points minus one, gptq_v2 as they are.
enum class CheckpointFormat { gptq, gptq_v2 };

struct QuantizationConfig {
  int bits = 4;
  int group_size = 0;  // 32, 64 or 128 input columns share a scale
  bool sym = true;
  bool desc_act = false;
  CheckpointFormat checkpoint_format = CheckpointFormat::gptq;
};

struct ModelConfig {
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_hidden_layers = 0;
  int vocab_size = 0;
  std::vector<MixerType> mixer_types;  // [num_hidden_layers]

  // Sparse layers. num_attention_heads is a multiple of num_key_value_heads.
  int num_attention_heads = 0;
  int num_key_value_heads = 0;
  int head_dim = 0;
  bool attn_use_rope = false;
  bool attn_use_output_gate = true;           // o_gate
  std::optional<SparseConfig> sparse_config;  // none: always dense
  std::optional<AttnLogitLogScale> attn_logit_log_scale;

  // Lightning layers. lightning_nh is a multiple of lightning_nkv.
  int lightning_nh = 0;
  int lightning_nkv = 0;
  int lightning_head_dim = 0;
  float lightning_scale = 0;  // "1/sqrt(d)" or "1/d" as a factor
  bool lightning_use_rope = true;
  bool lightning_layerwise_decay = false;
  bool qk_norm = true;          // q_norm, k_norm: lightning layers only
  bool use_output_norm = true;  // o_norm
  bool use_output_gate = true;  // z_proj

  bool attention_bias = false;  // q_proj, k_proj and v_proj of every layer have a bias
  bool tie_word_embeddings = false;
  float rms_norm_eps = 1e-6f;
  float rope_theta = 10000.0f;
  float scale_emb = 1;
  float scale_depth = 1;
  float dim_model_base = 0;
  std::vector<int32_t> eos_token_ids;  // config.json's eos_token_id, a number or a list
  std::optional<QuantizationConfig> quantization_config;

  int n_sparse_layers() const { return int(std::count(mixer_types.begin(), mixer_types.end(), MixerType::sparse)); }
  int n_lightning_layers() const { return num_hidden_layers - n_sparse_layers(); }
  float residual_scale() const;  // scale_depth / √num_hidden_layers
  float logits_divisor() const;  // hidden_size / dim_model_base: the normed hidden row is divided by it before lm_head
};

// The fixed natural logarithm of the decay per token, [lightning_nh], each ≤ 0: −slope of ALiBi (Press et al. 2022,
// section 3 and its rule for head counts that are no power of two), in layer `layer` times 1 − layer / (L − 1) + 1e-5
// where lightning_layerwise_decay is set. A layer's log_decay tensor replaces them (weights.h).
std::vector<float> fixed_log_decay(const ModelConfig& config, int layer);

// Reads <folder>/config.json and, if that has no quantization_config, <folder>/quantize_config.json.
// Throws model_not_found (no folder or no config.json), model_invalid (missing key, wrong type, absurd size) or
// unsupported (a value that means something we do not do); the text names file, key, expected and found.
ModelConfig load_model_config(const std::string& folder);

// The same from text. `file` and `quantize_file` appear in messages; nullopt: there is no quantize_config.json.
ModelConfig parse_model_config(std::string_view text, const std::string& file,
                               std::optional<std::string_view> quantize_text = std::nullopt,
                               const std::string& quantize_file = "quantize_config.json");

}  // namespace sala
