// Every key that means something is read here once, with its range; keys that inference does not need are not looked
// at. A key may be absent only where the published value cannot silently be wrong: shapes would contradict it at once,
// or no model has another.
#include "native/model_config.h"

#include <cmath>
#include <limits>

#include "native/json.h"
#include "native/platform.h"

namespace sala {

namespace {

using nlohmann::json;

// Far above any model, and small enough that no product of two of them, times 4 bytes, comes near 2^63, nor the product
// of heads and head_dim (checked below) near 2^31.
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxVocabSize = 1 << 24;
constexpr int kMaxLayers = 1 << 12;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxHeadDim = 1 << 12;
constexpr int kMaxTokens = 1 << 30;
constexpr size_t kMaxConfigBytes = 16 << 20;

// One JSON object with its place, for reading keys by name and type.
class Fields {
 public:
  Fields(const json& object, std::string place, const std::string& expected)
      : object_(object), place_(std::move(place)) {
    if (!object.is_object())
      fail(ErrorCode::model_invalid, place_, ": expected ", expected, ", found ", json_text(object));
  }

  // HF writes null for "not set".
  bool has(const std::string& key) const {
    const auto it = object_.find(key);
    return it != object_.end() && !it->is_null();
  }

  [[noreturn]] void refuse(ErrorCode code, const std::string& key, const std::string& expected,
                           const std::string& found) const {
    fail(code, place_, ": ", key, ": expected ", expected, ", found ", found);
  }
  [[noreturn]] void refuse(ErrorCode code, const std::string& key, const std::string& expected) const {
    const auto it = object_.find(key);
    refuse(code, key, expected, it == object_.end() ? "nothing" : json_text(*it));
  }

  const json& get(const std::string& key, const std::string& expected) const {
    if (!has(key)) refuse(ErrorCode::model_invalid, key, expected);
    return object_.at(key);
  }

  int64_t integer(const std::string& key, int64_t min, int64_t max) const {
    const std::string expected = "an integer from " + std::to_string(min) + " to " + std::to_string(max);
    const json& value = get(key, expected);
    // Above 2^63 − 1 the parser gives an unsigned number, which would come out negative.
    const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max);
    if (!value.is_number_integer() || too_large || value.get<int64_t>() < min || value.get<int64_t>() > max) {
      refuse(ErrorCode::model_invalid, key, expected);
    }
    return value.get<int64_t>();
  }
  int64_t integer(const std::string& key, int64_t min, int64_t max, int64_t absent) const {
    return has(key) ? integer(key, min, max) : absent;
  }
  int size(const std::string& key, int max) const { return static_cast<int>(integer(key, 1, max)); }
  int size(const std::string& key, int max, int absent) const { return has(key) ? size(key, max) : absent; }

  double number(const std::string& key, double above, double max) const {
    std::ostringstream expected;
    expected << "a number above " << above << ", at most " << max;
    const json& value = get(key, expected.str());
    if (!value.is_number() || !(value.get<double>() > above) || !(value.get<double>() <= max)) {
      refuse(ErrorCode::model_invalid, key, expected.str());
    }
    return value.get<double>();
  }
  double number(const std::string& key, double above, double max, double absent) const {
    return has(key) ? number(key, above, max) : absent;
  }

  bool boolean(const std::string& key, bool absent) const {
    if (!has(key)) return absent;
    if (!object_.at(key).is_boolean()) refuse(ErrorCode::model_invalid, key, "true or false");
    return object_.at(key).get<bool>();
  }

  std::string text(const std::string& key, const std::string& expected) const {
    const json& value = get(key, expected);
    if (!value.is_string()) refuse(ErrorCode::model_invalid, key, expected);
    return value.get<std::string>();
  }

  // A value that decides what is computed and of which we do only one.
  void only(const std::string& key, const json& value) const {
    if (has(key) && object_.at(key) != value) refuse(ErrorCode::unsupported, key, json_text(value));
  }
  void only_null(const std::string& key) const {
    if (has(key)) refuse(ErrorCode::unsupported, key, "null");
  }

  Fields object(const std::string& key) const {
    return Fields(get(key, "an object"), place_ + ": " + key, "an object");
  }

 private:
  const json& object_;
  std::string place_;
};

std::vector<MixerType> read_mixer_types(const Fields& fields, int num_hidden_layers) {
  const std::string expected = "a list of " + std::to_string(num_hidden_layers) + " names, one a layer";
  const json& list = fields.get("mixer_types", expected);
  if (!list.is_array()) fields.refuse(ErrorCode::model_invalid, "mixer_types", expected);
  if (list.size() != static_cast<size_t>(num_hidden_layers)) {
    fields.refuse(ErrorCode::model_invalid, "mixer_types", expected, std::to_string(list.size()));
  }
  std::vector<MixerType> mixer_types;
  for (const json& item : list) {
    const std::string key = "mixer_types[" + std::to_string(mixer_types.size()) + "]";
    if (!item.is_string()) fields.refuse(ErrorCode::model_invalid, key, "a name", json_text(item));
    const std::string name = item.get<std::string>();
    if (name == "lightning-attn" || name == "lightning_attn" || name == "lightning") {
      mixer_types.push_back(MixerType::lightning);
    } else if (name == "minicpm4" || name == "minicpm" || name == "standard" || name == "attention" || name == "attn") {
      mixer_types.push_back(MixerType::sparse);
    } else {
      fields.refuse(ErrorCode::unsupported, key, "lightning-attn or minicpm4", json_text(item));
    }
  }
  return mixer_types;
}

std::vector<int32_t> read_eos_token_ids(const Fields& fields, int vocab_size) {
  const std::string expected = "a token id below vocab_size or a list of them";
  const json& value = fields.get("eos_token_id", expected);
  std::vector<int32_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size) {
      fields.refuse(ErrorCode::model_invalid, "eos_token_id", expected);
    }
    ids.push_back(id.get<int32_t>());
  }
  if (ids.empty()) fields.refuse(ErrorCode::model_invalid, "eos_token_id", expected);
  return ids;
}

SparseConfig read_sparse_config(const Fields& fields) {
  // The three that fix the geometry of windows and blocks: tiles, stored segments and their windows are built on them.
  fields.only("kernel_size", 32);
  fields.only("kernel_stride", 16);
  fields.only("block_size", 64);
  SparseConfig sparse;
  sparse.init_blocks = static_cast<int>(fields.integer("init_blocks", 0, kMaxTokens / 64));
  sparse.window_size = static_cast<int>(fields.integer("window_size", 0, kMaxTokens));
  sparse.topk = static_cast<int>(fields.integer("topk", 0, kMaxTokens / 64));
  sparse.use_nope = fields.boolean("use_nope", false);
  sparse.dense_len = fields.integer("dense_len", 0, int64_t{1} << 40);
  if (sparse.window_size % sparse.block_size != 0) {
    fields.refuse(ErrorCode::unsupported, "window_size", "a multiple of block_size, 64");
  }
  return sparse;
}

QuantizationConfig read_quantization_config(const Fields& fields) {
  if (fields.has("quant_method")) fields.only("quant_method", "gptq");
  fields.only("pack_dtype", "int32");
  QuantizationConfig quantization;
  quantization.bits = static_cast<int>(fields.integer("bits", 1, 64));
  fields.only("bits", 4);
  // AutoGPTQ has −1 for "one group over all columns".
  quantization.group_size = static_cast<int>(fields.integer("group_size", -1, kMaxWidth));
  if (quantization.group_size != 32 && quantization.group_size != 64 && quantization.group_size != 128) {
    fields.refuse(ErrorCode::unsupported, "group_size", "32, 64 or 128");
  }
  quantization.sym = fields.boolean("sym", true);
  quantization.desc_act = fields.boolean("desc_act", false);
  if (fields.has("checkpoint_format")) {
    const std::string format = fields.text("checkpoint_format", "gptq or gptq_v2");
    if (format != "gptq" && format != "gptq_v2") {
      fields.refuse(ErrorCode::unsupported, "checkpoint_format", "gptq or gptq_v2");
    }
    if (format == "gptq_v2") quantization.checkpoint_format = CheckpointFormat::gptq_v2;
  }
  return quantization;
}

void check_heads(const std::string& file, const char* n_heads_key, int n_heads, const char* n_kv_heads_key,
                 int n_kv_heads, const char* head_dim_key, int head_dim, bool rope) {
  if (n_heads % n_kv_heads != 0) {
    fail(ErrorCode::model_invalid, file, ": ", n_heads_key, ": expected a multiple of ", n_kv_heads_key, " (",
         n_kv_heads, "), found ", n_heads);
  }
  if (int64_t{n_heads} * head_dim > kMaxWidth) {
    fail(ErrorCode::model_invalid, file, ": ", n_heads_key, " * ", head_dim_key, ": expected at most ", kMaxWidth,
         ", found ", n_heads, " * ", head_dim);
  }
  if (rope && head_dim % 2 != 0) {
    fail(ErrorCode::model_invalid, file, ": ", head_dim_key, ": expected an even number to rotate, found ", head_dim);
  }
}

}  // namespace

float ModelConfig::residual_scale() const {
  return static_cast<float>(scale_depth / std::sqrt(static_cast<double>(num_hidden_layers)));
}

float ModelConfig::logits_divisor() const { return static_cast<float>(hidden_size) / dim_model_base; }

std::vector<float> fixed_log_decay(const ModelConfig& config, int layer) {
  CHECK(layer >= 0 && layer < config.num_hidden_layers);
  const int n_heads = config.lightning_nh;
  int base = 1;  // largest power of two that is not above n_heads
  while (base * 2 <= n_heads) base *= 2;
  const double depth = static_cast<double>(layer) / std::max(1, config.num_hidden_layers - 1);
  const double layer_factor = config.lightning_layerwise_decay ? 1 - depth + 1e-5 : 1;
  std::vector<float> log_decay(n_heads);
  for (int head = 0; head < n_heads; ++head) {
    // Heads beyond base take every other slope of the sequence for twice as many heads, from its start.
    const double exponent = head < base ? 8.0 * (head + 1) / base : 8.0 * (2 * (head - base) + 1) / (2 * base);
    log_decay[head] = static_cast<float>(-std::exp2(-exponent) * layer_factor);
  }
  return log_decay;
}

ModelConfig parse_model_config(std::string_view text, const std::string& file,
                               std::optional<std::string_view> quantize_text, const std::string& quantize_file) {
  const json root = parse_json(text, file, ErrorCode::model_invalid);
  const Fields fields(root, file, "an object");
  if (fields.text("model_type", "minicpm_sala") != "minicpm_sala") {
    fields.refuse(ErrorCode::unsupported, "model_type", "minicpm_sala");
  }
  fields.only("hidden_act", "silu");
  fields.only_null("rope_scaling");
  fields.only_null("rope_parameters");

  ModelConfig config;
  config.hidden_size = fields.size("hidden_size", kMaxWidth);
  config.intermediate_size = fields.size("intermediate_size", kMaxWidth);
  config.num_hidden_layers = fields.size("num_hidden_layers", kMaxLayers);
  config.vocab_size = fields.size("vocab_size", kMaxVocabSize);
  config.mixer_types = read_mixer_types(fields, config.num_hidden_layers);

  config.num_attention_heads = fields.size("num_attention_heads", kMaxHeads);
  config.num_key_value_heads = fields.size("num_key_value_heads", kMaxHeads);
  config.head_dim = fields.size("head_dim", kMaxHeadDim, std::max(1, config.hidden_size / config.num_attention_heads));
  config.attn_use_rope = fields.boolean("attn_use_rope", false);
  config.attn_use_output_gate = fields.boolean("attn_use_output_gate", true);
  check_heads(file, "num_attention_heads", config.num_attention_heads, "num_key_value_heads",
              config.num_key_value_heads, "head_dim", config.head_dim, config.attn_use_rope);
  if (fields.has("sparse_config")) config.sparse_config = read_sparse_config(fields.object("sparse_config"));
  if (fields.has("attn_logit_log_scale")) {
    const Fields scale = fields.object("attn_logit_log_scale");
    // ln(t + offset) must exist from t = 1 on, and ln(from + offset) be positive.
    const double offset = scale.number("offset", -1, 1e12);
    config.attn_logit_log_scale = {offset, scale.number("from", std::max(0.0, 1 - offset), 1e12)};
  }

  config.lightning_nh = fields.size("lightning_nh", kMaxHeads, config.num_attention_heads);
  config.lightning_nkv = fields.size("lightning_nkv", kMaxHeads, config.lightning_nh);
  config.lightning_head_dim = fields.size("lightning_head_dim", kMaxHeadDim, config.head_dim);
  const std::string scale =
      fields.has("lightning_scale") ? fields.text("lightning_scale", "1/sqrt(d) or 1/d") : "1/sqrt(d)";
  if (scale != "1/sqrt(d)" && scale != "1/d")
    fields.refuse(ErrorCode::unsupported, "lightning_scale", "1/sqrt(d) or 1/d");
  const double d = config.lightning_head_dim;
  config.lightning_scale = static_cast<float>(scale == "1/d" ? 1 / d : 1 / std::sqrt(d));
  config.lightning_use_rope = fields.boolean("lightning_use_rope", true);
  config.lightning_layerwise_decay = fields.boolean("lightning_layerwise_decay", false);
  config.qk_norm = fields.boolean("qk_norm", true);
  config.use_output_norm = fields.boolean("use_output_norm", true);
  config.use_output_gate = fields.boolean("use_output_gate", true);
  check_heads(file, "lightning_nh", config.lightning_nh, "lightning_nkv", config.lightning_nkv, "lightning_head_dim",
              config.lightning_head_dim, config.lightning_use_rope);

  config.attention_bias = fields.boolean("attention_bias", false);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  config.rms_norm_eps = static_cast<float>(fields.number("rms_norm_eps", 0, 1, 1e-6));
  config.rope_theta = static_cast<float>(fields.number("rope_theta", 1, 1e12, 10000));
  config.scale_emb = static_cast<float>(fields.number("scale_emb", 0, 1e6));
  config.scale_depth = static_cast<float>(fields.number("scale_depth", 0, 1e6));
  config.dim_model_base = static_cast<float>(fields.number("dim_model_base", 0, kMaxWidth));
  config.eos_token_ids = read_eos_token_ids(fields, config.vocab_size);

  if (fields.has("quantization_config")) {
    config.quantization_config = read_quantization_config(fields.object("quantization_config"));
  } else if (quantize_text) {
    const json quantize = parse_json(*quantize_text, quantize_file, ErrorCode::model_invalid);
    config.quantization_config = read_quantization_config(Fields(quantize, quantize_file, "an object"));
  }
  return config;
}

ModelConfig load_model_config(const std::string& folder) {
  if (!is_folder(folder)) fail(ErrorCode::model_not_found, folder, ": expected a model folder, found no folder");
  const std::string file = join_path(folder, "config.json"), quantize_file = join_path(folder, "quantize_config.json");
  if (file_status(file).kind == FileStatus::Kind::none) {
    fail(ErrorCode::model_not_found, folder, ": expected a model folder, found no config.json in it");
  }
  const std::string text = read_file(file, kMaxConfigBytes, ErrorCode::model_invalid);
  if (file_status(quantize_file).kind == FileStatus::Kind::none) return parse_model_config(text, file);
  const std::string quantize_text = read_file(quantize_file, kMaxConfigBytes, ErrorCode::model_invalid);
  return parse_model_config(text, file, quantize_text, quantize_file);
}

}  // namespace sala
