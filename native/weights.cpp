// One list of slots says which tensor of which shape goes where; checking, packing, expected_tensors and unused_tensors
// all walk that list, so they cannot disagree.
#include "native/weights.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <set>
#include <variant>

#include "native/gptq.h"

namespace sala {

namespace {

enum class Presence { required, optional };

struct Slot {
  std::string name;                                    // of the tensor; of a matrix: without ".weight"
  std::vector<int64_t> shape;                          // of a matrix: [out_features, in_features]
  std::variant<Aligned<float>*, Linear*, Matrix*> to;  // vector, linear layer, embedding
  Presence presence = Presence::required;

  bool is_vector() const { return std::holds_alternative<Aligned<float>*>(to); }
  int out_features() const { return static_cast<int>(shape[0]); }
  int in_features() const { return static_cast<int>(shape[1]); }
};

// In the order of the graph.
std::vector<Slot> slots_of(const ModelConfig& config, Weights& weights) {
  std::vector<Slot> slots;
  const auto vector = [&](const std::string& name, int64_t n, Aligned<float>& to,
                          Presence presence = Presence::required) {
    slots.push_back({name, {n}, &to, presence});
  };
  const auto linear = [&](const std::string& name, int64_t out_features, int64_t in_features, Linear& to) {
    slots.push_back({name, {out_features, in_features}, &to});
  };
  const int64_t hidden_size = config.hidden_size, intermediate_size = config.intermediate_size;
  slots.push_back({"model.embed_tokens", {config.vocab_size, hidden_size}, &weights.embed_tokens});
  weights.layers.resize(config.num_hidden_layers);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const bool lightning = config.mixer_types[i] == MixerType::lightning;
    const int64_t head_dim = lightning ? config.lightning_head_dim : config.head_dim;
    const int64_t q_size = head_dim * (lightning ? config.lightning_nh : config.num_attention_heads);
    const int64_t kv_size = head_dim * (lightning ? config.lightning_nkv : config.num_key_value_heads);
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const std::string attn = layer + "self_attn.", mlp = layer + "mlp.";
    LayerWeights& to = weights.layers[i];
    vector(layer + "input_layernorm.weight", hidden_size, to.input_layernorm);
    linear(attn + "q_proj", q_size, hidden_size, to.q_proj);
    linear(attn + "k_proj", kv_size, hidden_size, to.k_proj);
    linear(attn + "v_proj", kv_size, hidden_size, to.v_proj);
    if (config.attention_bias) {
      vector(attn + "q_proj.bias", q_size, to.q_proj.bias);
      vector(attn + "k_proj.bias", kv_size, to.k_proj.bias);
      vector(attn + "v_proj.bias", kv_size, to.v_proj.bias);
    }
    linear(attn + "o_proj", hidden_size, q_size, to.o_proj);
    vector(attn + "o_proj.bias", hidden_size, to.o_proj.bias, Presence::optional);
    if (lightning) {
      if (config.qk_norm) vector(attn + "q_norm.weight", head_dim, to.q_norm);
      if (config.qk_norm) vector(attn + "k_norm.weight", head_dim, to.k_norm);
      if (config.use_output_norm) vector(attn + "o_norm.weight", q_size, to.o_norm);
      vector(attn + "log_decay", config.lightning_nh, to.log_decay, Presence::optional);
    }
    if (lightning && config.use_output_gate) {
      linear(attn + "z_proj", q_size, hidden_size, to.z_proj);
      vector(attn + "z_proj.bias", q_size, to.z_proj.bias, Presence::optional);
    }
    if (!lightning && config.attn_use_output_gate) {
      linear(attn + "o_gate", q_size, hidden_size, to.o_gate);
      vector(attn + "o_gate.bias", q_size, to.o_gate.bias, Presence::optional);
    }
    vector(layer + "post_attention_layernorm.weight", hidden_size, to.post_attention_layernorm);
    linear(mlp + "gate_proj", intermediate_size, hidden_size, to.gate_proj);
    linear(mlp + "up_proj", intermediate_size, hidden_size, to.up_proj);
    linear(mlp + "down_proj", hidden_size, intermediate_size, to.down_proj);
  }
  vector("model.norm.weight", hidden_size, weights.norm);
  if (!config.tie_word_embeddings) linear("lm_head", config.vocab_size, hidden_size, weights.lm_head);
  return slots;
}

// The tensors of a slot. Exactly one of `values` and `gptq.qweight` is set, neither for an optional one that is absent.
struct Source {
  const TensorView* values = nullptr;
  const TensorView* scales = nullptr;  // of int8 values
  GptqTensors gptq{};

  std::vector<const TensorView*> tensors() const {
    std::vector<const TensorView*> all;
    for (const TensorView* tensor : {values, scales, gptq.qweight, gptq.qzeros, gptq.scales, gptq.g_idx}) {
      if (tensor) all.push_back(tensor);
    }
    return all;
  }
};

Source find_source(const Slot& slot, const Checkpoint& checkpoint) {
  const auto find = [&](const std::string& name) { return checkpoint.has(name) ? &checkpoint.get(name) : nullptr; };
  Source source;
  if (slot.is_vector()) {
    source.values = find(slot.name);
    return source;
  }
  source.values = find(slot.name + ".weight");
  if (std::holds_alternative<Matrix*>(slot.to)) {
    source.scales = source.values && source.values->dtype == Dtype::i8 ? find(slot.name + ".scales") : nullptr;
    return source;
  }
  source.gptq = {find(slot.name + ".qweight"), find(slot.name + ".qzeros"), find(slot.name + ".scales"),
                 find(slot.name + ".g_idx")};
  // Without qweight the others say nothing, whatever they are.
  if (!source.gptq.qweight) source.gptq = {};
  return source;
}

void check_source(const Slot& slot, const Source& source, const ModelConfig& config, const Checkpoint& checkpoint) {
  const GptqTensors& gptq = source.gptq;
  if (!source.values && !gptq.qweight) {
    if (slot.presence == Presence::optional) return;
    const bool is_linear = std::holds_alternative<Linear*>(slot.to);
    const char* ending = is_linear ? ".weight or .qweight" : slot.is_vector() ? "" : ".weight";
    fail(ErrorCode::model_invalid, checkpoint.folder(), ": ", slot.name, ending, ": expected ", shape_text(slot.shape),
         ", found no such tensor");
  }
  if (gptq.qweight) {
    const std::string place = gptq.qweight->file + ": " + slot.name;
    if (source.values) fail(ErrorCode::model_invalid, place, ": expected .weight or .qweight, found both");
    if (!gptq.qzeros || !gptq.scales) {
      fail(ErrorCode::model_invalid, place, gptq.qzeros ? ".scales" : ".qzeros",
           ": expected beside .qweight, found no such tensor");
    }
    if (!config.quantization_config) {
      fail(ErrorCode::model_invalid, place,
           ".qweight: expected quantization_config in config.json or quantize_config.json, found neither");
    }
    check_gptq(gptq, *config.quantization_config, slot.out_features(), slot.in_features(), slot.name);
    return;
  }
  if (!std::holds_alternative<Matrix*>(slot.to)) {
    expect_tensor(*source.values, {Dtype::f32, Dtype::f16, Dtype::bf16}, slot.shape);
    return;
  }
  expect_tensor(*source.values, {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}, slot.shape);
  if (source.values->dtype != Dtype::i8) return;
  if (!source.scales) {
    fail(ErrorCode::model_invalid, source.values->file, ": ", slot.name,
         ".scales: expected beside an I8 weight, found no such tensor");
  }
  expect_tensor(*source.scales, {Dtype::f32, Dtype::f16, Dtype::bf16}, {slot.shape[0]});
}

// A lower bound: zero points and column orders are known only from the data.
uint64_t packed_bytes(const Slot& slot, const Source& source, const ModelConfig& config) {
  if (source.tensors().empty()) return 0;
  if (slot.is_vector()) return sizeof(float) * static_cast<uint64_t>(slot.shape[0]);
  const uint64_t n_rows = (static_cast<uint64_t>(slot.shape[0]) + kPanelRows - 1) / kPanelRows * kPanelRows;
  const uint64_t n_columns = (static_cast<uint64_t>(slot.shape[1]) + 7) / 8 * 8;
  if (source.gptq.qweight) {
    return n_rows * n_columns / 2 + sizeof(float) * n_rows * (n_columns / config.quantization_config->group_size);
  }
  return n_rows * n_columns * dtype_size(source.values->dtype) + (source.scales ? sizeof(float) * n_rows : 0);
}

Matrix pack_values(const TensorView& tensor, const TensorView* scales, int out_features, int in_features, Arena* arena) {
  if (tensor.dtype == Dtype::i8) {
    const Aligned<float> row_scales = read_floats(*scales);
    return pack_int8(reinterpret_cast<const int8_t*>(tensor.data), row_scales.data(), out_features, in_features, arena);
  }
  const MatrixForm form = tensor.dtype == Dtype::f32   ? MatrixForm::f32
                          : tensor.dtype == Dtype::f16 ? MatrixForm::f16
                                                       : MatrixForm::bf16;
  return pack_dense(form, tensor.data, out_features, in_features, arena);
}

// The tensors of one slot at a time in memory, which is kept from slot to slot.
class SourceReader {
 public:
  explicit SourceReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  SourceReader(const SourceReader&) = delete;
  SourceReader& operator=(const SourceReader&) = delete;

  // Valid until the next call.
  Source read(const Source& source) {
    const std::vector<const TensorView*> tensors = source.tensors();
    size_t n_bytes = 0;
    for (const TensorView* tensor : tensors) n_bytes += padded(tensor->nbytes);
    if (n_bytes > bytes_.size()) {
      bytes_ = {};
      bytes_ = Aligned<uint8_t>::uninitialized(n_bytes);
    }
    views_.clear();
    views_.reserve(tensors.size());
    uint8_t* to = bytes_.data();
    const auto view = [&](const TensorView* tensor) -> const TensorView* {
      if (!tensor) return nullptr;
      checkpoint_.read(*tensor, to);
      views_.push_back(*tensor);
      views_.back().data = to;
      to += padded(tensor->nbytes);
      return &views_.back();
    };
    Source loaded;
    loaded.values = view(source.values);
    loaded.scales = view(source.scales);
    loaded.gptq = {view(source.gptq.qweight), view(source.gptq.qzeros), view(source.gptq.scales), view(source.gptq.g_idx)};
    return loaded;
  }

 private:
  static size_t padded(size_t n_bytes) { return (n_bytes + 63) / 64 * 64; }

  const Checkpoint& checkpoint_;
  Aligned<uint8_t> bytes_;
  std::vector<TensorView> views_;
};

void pack(const Slot& slot, const Source& source, const ModelConfig& config, Arena* arena) {
  if (source.tensors().empty()) return;
  if (auto* const* vector = std::get_if<Aligned<float>*>(&slot.to)) {
    **vector = read_floats(*source.values);
    return;
  }
  Linear* const* linear = std::get_if<Linear*>(&slot.to);
  Matrix& to = linear ? (*linear)->weight : *std::get<Matrix*>(slot.to);
  to = source.gptq.qweight
           ? pack_gptq(source.gptq, *config.quantization_config, slot.out_features(), slot.in_features(), arena)
           : pack_values(*source.values, source.scales, slot.out_features(), slot.in_features(), arena);
}

// Fills in the fixed slopes of layers without log_decay, and checks those that have it.
void finish_log_decay(const ModelConfig& config, const Checkpoint& checkpoint, Weights& weights) {
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    if (config.mixer_types[i] != MixerType::lightning) continue;
    Aligned<float>& log_decay = weights.layers[i].log_decay;
    if (log_decay.empty()) {
      const std::vector<float> fixed = fixed_log_decay(config, i);
      log_decay = Aligned<float>(fixed.size());
      std::copy(fixed.begin(), fixed.end(), log_decay.begin());
    }
    for (size_t head = 0; head < log_decay.size(); ++head) {
      if (log_decay[head] <= 0) continue;
      // Above 0 the state would grow without bound.
      const TensorView& tensor = checkpoint.get("model.layers." + std::to_string(i) + ".self_attn.log_decay");
      fail(ErrorCode::model_invalid, tensor.file, ": ", tensor.name, "[", head, "]: expected at most 0, found ",
           log_decay[head]);
    }
  }
}

}  // namespace

size_t Weights::bytes() const {
  size_t n = 0;
  const auto vector = [&](const Aligned<float>& v) { n += sizeof(float) * v.size(); };
  const auto linear = [&](const Linear& l) {
    n += l.weight.bytes();
    vector(l.bias);
  };
  n += embed_tokens.bytes();
  vector(norm);
  linear(lm_head);
  for (const LayerWeights& layer : layers) {
    for (const Linear* l : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.z_proj, &layer.o_gate,
                            &layer.gate_proj, &layer.up_proj, &layer.down_proj}) {
      linear(*l);
    }
    for (const Aligned<float>* v : {&layer.input_layernorm, &layer.post_attention_layernorm, &layer.q_norm,
                                    &layer.k_norm, &layer.o_norm, &layer.log_decay}) {
      vector(*v);
    }
  }
  return n;
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  Weights unfilled;
  std::vector<ExpectedTensor> expected;
  for (const Slot& slot : slots_of(config, unfilled)) {
    if (slot.presence == Presence::optional) continue;
    expected.push_back({slot.is_vector() ? slot.name : slot.name + ".weight", slot.shape});
  }
  return expected;
}

uint64_t check_weights(const ModelConfig& config, const Checkpoint& checkpoint) {
  Weights unfilled;
  uint64_t n_bytes = 0;
  for (const Slot& slot : slots_of(config, unfilled)) {
    const Source source = find_source(slot, checkpoint);
    check_source(slot, source, config, checkpoint);
    n_bytes += packed_bytes(slot, source, config);
  }
  return n_bytes;
}

Weights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, const MemoryLimit& limit, Stream& stream) {
  const uint64_t n_bytes = check_weights(config, checkpoint), available_bytes = system_memory().available_bytes;
  Weights weights;
  const std::vector<Slot> slots = slots_of(config, weights);
  std::vector<Source> sources;
  for (const Slot& slot : slots) sources.push_back(find_source(slot, checkpoint));
  // What is packed last should be small, so that no thread is left waiting for it.
  std::vector<uint64_t> source_bytes(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    for (const TensorView* tensor : sources[i].tensors()) source_bytes[i] += tensor->nbytes;
  }
  std::vector<size_t> order(slots.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return source_bytes[a] > source_bytes[b]; });
  // Each thread holds one slot's tensors while it packs them.
  uint64_t n_source_bytes = 0;
  for (size_t i = 0; i < std::min<size_t>(order.size(), stream.n_threads()); ++i) n_source_bytes += source_bytes[order[i]];
  limit.require(n_bytes + n_source_bytes, checkpoint.folder() + ": weights");
  if (n_bytes > available_bytes) {
    fail(ErrorCode::out_of_memory, checkpoint.folder(), ": expected ", n_bytes,
         " bytes of free memory for its weights, found ", available_bytes);
  }
  // A decoded token reads all weights once: on pages of 4 KB a tenth of its time went into translating addresses, a third beside
  // other work (docs/performance.md).
  const size_t arena_bytes = Arena::padded(n_bytes, 4 * slots.size());
  Arena arena(huge_page_memory(arena_bytes), arena_bytes);
  std::atomic<size_t> next{0};
  stream.parallel_for(stream.n_threads(), 1, [&](int, int) {
    SourceReader reader(checkpoint);
    for (size_t i = next++; i < order.size(); i = next++) pack(slots[order[i]], reader.read(sources[order[i]]), config, &arena);
  });
  finish_log_decay(config, checkpoint, weights);
  release_free_memory();
  return weights;
}

std::vector<std::string> unused_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  Weights unfilled;
  std::set<std::string> used;
  for (const Slot& slot : slots_of(config, unfilled)) {
    for (const TensorView* tensor : find_source(slot, checkpoint).tensors()) used.insert(tensor->name);
  }
  std::vector<std::string> unused;
  for (const std::string& name : checkpoint.names()) {
    if (used.count(name) == 0) unused.push_back(name);
  }
  return unused;
}

}  // namespace sala
