// Binds the tensors of a checkpoint by name to layer structs and packs them for the kernels. Every name and shape is
// checked before the first one is packed. Fields are named like the checkpoint's tensors. Not here: the formats
// themselves (safetensors.h, gptq.h), the graph (model.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/matrix.h"
#include "kernels/stream.h"
#include "native/memory_limit.h"
#include "native/model_config.h"
#include "native/safetensors.h"

namespace sala {

// y = x · Wᵀ + bias.
struct Linear {
  Matrix weight;        // [out_features, in_features]
  Aligned<float> bias;  // [out_features], or empty

  // The model has this layer: z_proj, o_gate and lm_head need not be there.
  bool exists() const { return weight.out_features > 0; }
};

// H = heads · head_dim of the layer's kind: num_attention_heads · head_dim (sparse) or lightning_nh ·
// lightning_head_dim; G the same for its K/V heads.
struct LayerWeights {
  Aligned<float> input_layernorm;           // [hidden_size]
  Aligned<float> post_attention_layernorm;  // [hidden_size]

  Linear q_proj;  // [H, hidden_size]
  Linear k_proj;  // [G, hidden_size]
  Linear v_proj;  // [G, hidden_size]
  Linear o_proj;  // [hidden_size, H]

  // Lightning layers; empty in sparse ones, and where the configuration says so.
  Linear z_proj;             // [H, hidden_size], use_output_gate
  Aligned<float> q_norm;     // [lightning_head_dim], qk_norm
  Aligned<float> k_norm;     // [lightning_head_dim], qk_norm
  Aligned<float> o_norm;     // [H], use_output_norm
  Aligned<float> log_decay;  // [lightning_nh], ≤ 0: the checkpoint's, else the fixed slopes

  Linear o_gate;  // [H, hidden_size]: sparse layers with attn_use_output_gate

  Linear gate_proj;  // [intermediate_size, hidden_size]
  Linear up_proj;    // [intermediate_size, hidden_size]
  Linear down_proj;  // [hidden_size, intermediate_size]
};

struct Weights {
  Matrix embed_tokens;               // [vocab_size, hidden_size]: f32, f16, bf16 or int8
  std::vector<LayerWeights> layers;  // [num_hidden_layers]
  Aligned<float> norm;               // [hidden_size]
  Linear lm_head;                    // [vocab_size, hidden_size]; does not exist where the head is tied

  const Matrix& head() const { return lm_head.exists() ? lm_head.weight : embed_tokens; }
  size_t bytes() const;  // of all matrices and vectors
};

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// The tensors of an unquantised checkpoint of this configuration, those that it may lack (extra biases, log_decay) left
// out.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

// All that can be said without reading tensor data. Throws model_invalid (missing tensor, wrong shape; file, tensor,
// expected and found are named) or unsupported (a dtype or layout we cannot pack). Returns the bytes that the packed
// weights will take at least.
uint64_t check_weights(const ModelConfig& config, const Checkpoint& checkpoint);

// Checks, then reads and packs on all threads, each one matrix or vector at a time. Throws what check_weights does,
// model_invalid for values that cannot be (a norm or scale that is not finite, a positive log_decay), and out_of_memory
// before the first allocation if the packed weights exceed the memory available or, with the largest sources that the threads
// hold meanwhile, the limit.
Weights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, const MemoryLimit& limit, Stream& stream);

// Tensors that load_weights does not read, ascending: worth a warning, not an error.
std::vector<std::string> unused_tensors(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace sala
