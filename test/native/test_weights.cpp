// native/weights.h: whole model folders, right ones value by value, wrong ones by their message. Variants are made from
// the fixtures by altering configuration and tensors.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "native/weights.h"
#include "test/native/model_files.h"

using namespace sala;
using nlohmann::json;

namespace {

const std::string kNineB = kTestDir + "/fixtures/nine-b";
const std::string kTiny = kTestDir + "/fixtures/tiny";

Weights load(const std::string& folder, uint64_t max_memory_bytes = 0) {
  Stream stream(3);
  return load_weights(load_model_config(folder), Checkpoint(folder), MemoryLimit(max_memory_bytes), stream);
}

Weights load(const ModelFiles& files, size_t shift = 0) {
  TemporaryFolder folder;
  files.write(folder.path, shift);
  return load(folder.path);
}

// The values of a dense tensor of a file.
std::vector<float> dense_values(const FileTensor& tensor) {
  std::vector<float> values;
  const size_t size = tensor.dtype == "F32" ? 4 : 2;
  for (size_t at = 0; at < tensor.bytes.size(); at += size) {
    float value;
    uint16_t bits;
    if (size == 4) {
      std::memcpy(&value, tensor.bytes.data() + at, 4);
    } else {
      std::memcpy(&bits, tensor.bytes.data() + at, 2);
      value = tensor.dtype == "F16" ? f16_to_f32(bits) : bf16_to_f32(bits);
    }
    values.push_back(value);
  }
  return values;
}

// The values [out, in] of a quantised layer of a file: format gptq, symmetric, groups in order.
std::vector<float> gptq_values(const FileTensors& tensors, const std::string& module, int group_size) {
  const FileTensor& qweight = tensors.at(module + ".qweight");
  const std::vector<float> scales = dense_values(tensors.at(module + ".scales"));
  const int in = static_cast<int>(qweight.shape[0]) * 8, out = static_cast<int>(qweight.shape[1]);
  std::vector<float> values(static_cast<size_t>(in) * out);
  for (int i = 0; i < in; ++i) {
    for (int o = 0; o < out; ++o) {
      uint32_t word;
      std::memcpy(&word, qweight.bytes.data() + (static_cast<size_t>(i) / 8 * out + o) * 4, 4);
      values[static_cast<size_t>(o) * in + i] =
          scales[i / group_size * out + o] * (static_cast<int>(word >> 4 * (i % 8) & 15) - 8);
    }
  }
  return values;
}

std::vector<float> values_of(const Aligned<float>& vector) { return {vector.begin(), vector.end()}; }

// Every tensor of the file is where its name says, with its values.
void check_against_file(const ModelFiles& files, const Weights& weights) {
  const auto dense_or_gptq = [&](const std::string& module, const Linear& linear) {
    INFO(module);
    const auto it = files.tensors.find(module + ".weight");
    const int group_size = linear.weight.group_size;
    CHECK(unpack(linear.weight) ==
          (it != files.tensors.end() ? dense_values(it->second) : gptq_values(files.tensors, module, group_size)));
    const auto bias = files.tensors.find(module + ".bias");
    CHECK(values_of(linear.bias) == (bias != files.tensors.end() ? dense_values(bias->second) : std::vector<float>()));
  };
  const auto vector = [&](const std::string& name, const Aligned<float>& values) {
    INFO(name);
    const auto it = files.tensors.find(name);
    CHECK(values_of(values) == (it != files.tensors.end() ? dense_values(it->second) : std::vector<float>()));
  };
  vector("model.norm.weight", weights.norm);
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const LayerWeights& w = weights.layers[i];
    const bool lightning = files.config["mixer_types"][i] == "lightning-attn";
    vector(layer + "input_layernorm.weight", w.input_layernorm);
    vector(layer + "post_attention_layernorm.weight", w.post_attention_layernorm);
    for (const auto& [name, linear] : {std::pair{"q_proj", &w.q_proj}, std::pair{"k_proj", &w.k_proj},
                                       std::pair{"v_proj", &w.v_proj}, std::pair{"o_proj", &w.o_proj}}) {
      dense_or_gptq(layer + "self_attn." + name, *linear);
    }
    for (const auto& [name, linear] : {std::pair{"gate_proj", &w.gate_proj}, std::pair{"up_proj", &w.up_proj},
                                       std::pair{"down_proj", &w.down_proj}}) {
      dense_or_gptq(layer + "mlp." + name, *linear);
    }
    dense_or_gptq(layer + "self_attn." + (lightning ? "z_proj" : "o_gate"), lightning ? w.z_proj : w.o_gate);
    CHECK_FALSE((lightning ? w.o_gate : w.z_proj).exists());
    vector(layer + "self_attn.q_norm.weight", w.q_norm);
    vector(layer + "self_attn.k_norm.weight", w.k_norm);
    vector(layer + "self_attn.o_norm.weight", w.o_norm);
    if (files.tensors.count(layer + "self_attn.log_decay")) vector(layer + "self_attn.log_decay", w.log_decay);
    CHECK(w.log_decay.empty() == !lightning);
  }
}

// A copy of the small 9B with one change must be refused.
void refused(ErrorCode code, const std::vector<std::string>& parts, const std::string& fixture,
             const std::function<void(ModelFiles&)>& alter) {
  ModelFiles files(fixture);
  alter(files);
  check_error(code, parts, [&] { load(files); });
}

}  // namespace

TEST_CASE("every golden model and fixture loads, value by value, with nothing left over") {
  for (const char* name : {"golden/a-short-dense/model", "golden/b-sparse-small/model", "golden/h-qwen2-hybrid/model",
                           "golden/k-embedded/model", "fixtures/nine-b", "fixtures/tiny"}) {
    const std::string folder = kTestDir + "/" + name;
    INFO(folder);
    const ModelConfig config = load_model_config(folder);
    const Checkpoint checkpoint(folder);
    Stream stream(2);
    const Weights weights = load_weights(config, checkpoint, MemoryLimit(0), stream);
    const ModelFiles files(folder);
    check_against_file(files, weights);
    CHECK(unused_tensors(config, checkpoint).empty());
    // Symmetric, so there are no zero points: what was foretold is exact, but for slopes that no tensor gives.
    size_t n_fixed = 0;
    for (int i = 0; i < config.num_hidden_layers; ++i) {
      const bool lightning = config.mixer_types[i] == MixerType::lightning;
      n_fixed += lightning && !checkpoint.has("model.layers." + std::to_string(i) + ".self_attn.log_decay");
    }
    CHECK(weights.bytes() == check_weights(config, checkpoint) + n_fixed * config.lightning_nh * sizeof(float));
    CHECK(weights.lm_head.exists() != config.tie_word_embeddings);
    CHECK(&weights.head() == (config.tie_word_embeddings ? &weights.embed_tokens : &weights.lm_head.weight));
    const FileTensor& embedding = files.tensors.at("model.embed_tokens.weight");
    if (embedding.dtype != "I8") CHECK(unpack(weights.embed_tokens) == dense_values(embedding));
  }
}

TEST_CASE("an int8 embedding: code times the row's scale") {
  const Weights weights = load(kTiny);
  const ModelFiles files(kTiny);
  CHECK(weights.embed_tokens.form == MatrixForm::int8);
  const std::vector<float> values = unpack(weights.embed_tokens);
  const std::vector<float> scales = dense_values(files.tensors.at("model.embed_tokens.scales"));
  const std::string& codes = files.tensors.at("model.embed_tokens.weight").bytes;
  REQUIRE(values.size() == codes.size());
  for (size_t i = 0; i < values.size(); ++i) REQUIRE(values[i] == scales[i / 64] * static_cast<int8_t>(codes[i]));
}

TEST_CASE("a file that aligns nothing gives the same weights") {
  for (const std::string& folder : {kNineB, kTiny}) {
    const ModelFiles files(folder);
    for (size_t shift = 1; shift < 4; ++shift) check_against_file(files, load(files, shift));
  }
}

TEST_CASE("f32, f16 and bf16 may stand side by side") {
  ModelFiles files(kNineB);
  FileTensor& tensor = files.tensors.at("model.layers.2.mlp.up_proj.weight");
  tensor = {"F32", tensor.shape, bytes_of(dense_values(tensor))};
  FileTensor& norm = files.tensors.at("model.layers.2.self_attn.o_norm.weight");
  norm = {"F16", norm.shape, bytes_of(std::vector<uint16_t>(64, 0x3c00))};
  const Weights weights = load(files);
  CHECK(weights.layers[2].up_proj.weight.form == MatrixForm::f32);
  CHECK(weights.layers[2].gate_proj.weight.form == MatrixForm::bf16);
  check_against_file(files, weights);
}

TEST_CASE("the 9B's layout: every name and shape, and the number of parameters") {
  const std::string folder = kTestDir + "/fixtures/nine-b-layout";
  const json layout = json::parse(read_text(folder + "/tensors.json"));
  const std::vector<ExpectedTensor> expected = expected_tensors(load_model_config(folder));
  CHECK(expected.size() == layout.size());
  int64_t n_parameters = 0;
  for (const ExpectedTensor& tensor : expected) {
    INFO(tensor.name);
    REQUIRE(layout.contains(tensor.name));
    CHECK(layout[tensor.name] == tensor.shape);
    int64_t n = 1;
    for (const int64_t size : tensor.shape) n *= size;
    n_parameters += n;
  }
  CHECK(n_parameters == 9'477'203'968);
}

TEST_CASE("the 9B's tensors bind, in files that are all hole") {
  const std::string layout_folder = kTestDir + "/fixtures/nine-b-layout";
  const json layout = json::parse(read_text(layout_folder + "/tensors.json"));
  TemporaryFolder folder;
  write_text(folder / "config.json", read_text(layout_folder + "/config.json"));
  json weight_map;
  for (const int part : {1, 2}) {
    const std::string name = "model-0000" + std::to_string(part) + "-of-00002.safetensors";
    json header;
    uint64_t end = 0;
    for (const auto& [tensor, shape] : layout.items()) {
      if ((tensor < "model.layers.2") != (part == 1)) continue;
      uint64_t n = 2;
      for (const uint64_t size : shape) n *= size;
      header[tensor] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {end, end + n}}};
      weight_map[tensor] = name;
      end += n;
    }
    const std::string image = safetensors_image(header.dump(), "");
    write_text(folder / name, image);
    std::filesystem::resize_file(folder / name, image.size() + end);
  }
  write_text(folder / "model.safetensors.index.json", json({{"weight_map", weight_map}}).dump());
  const ModelConfig config = load_model_config(folder.path);
  const Checkpoint checkpoint(folder.path);
  CHECK(unused_tensors(config, checkpoint).empty());
  // bf16 as stored; vectors are widened to f32, and the vocabulary's 73,448 rows fill up to whole panels of 16.
  const uint64_t widened = 2 * (65 * 4096 + 24 * (2 * 128 + 4096)), padded = 2 * 8 * 4096 * 2;
  CHECK(check_weights(config, checkpoint) == 18'954'407'936 + widened + padded);
}

TEST_CASE("weights that cannot fit are refused before anything is allocated") {
  ModelFiles files(kNineB);
  TemporaryFolder folder;
  // Four terabytes of embedding, in a file that is all hole.
  files.config["vocab_size"] = 1 << 24;
  files.config["hidden_size"] = 1 << 16;
  files.config["tie_word_embeddings"] = true;
  files.config["num_hidden_layers"] = 1;
  files.config["mixer_types"] = {"minicpm4"};
  files.write(folder.path);
  json header;
  uint64_t end = 0;
  for (const ExpectedTensor& tensor : expected_tensors(load_model_config(folder.path))) {
    uint64_t n = 4;
    for (const int64_t size : tensor.shape) n *= static_cast<uint64_t>(size);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {end, end + n}}};
    end += n;
  }
  const std::string image = safetensors_image(header.dump(), "");
  write_text(folder / "model.safetensors", image);
  std::error_code error;
  std::filesystem::resize_file(folder / "model.safetensors", image.size() + end, error);
  if (error) {
    MESSAGE("skipped: this file system has no files of ", end, " bytes: ", error.message());
    return;
  }
  check_error(ErrorCode::out_of_memory, {folder.path, "bytes of free memory for its weights, found"},
              [&] { load(folder.path); });
}

TEST_CASE("a limit of memory is heeded before anything is allocated, and says what is allowed, in use and needed") {
  CHECK_NOTHROW(load(kTiny, uint64_t{1} << 40));
  check_error(ErrorCode::out_of_memory, {kTiny, "weights: expected at most 4096 bytes", "in use and", "more needed"}, [&] { load(kTiny, 4096); });
}

TEST_CASE("a file that is cut while it is read is an error, not the end of the process") {
  TemporaryFolder folder;
  ModelFiles(kTiny).write(folder.path);
  const ModelConfig config = load_model_config(folder.path);
  const Checkpoint checkpoint(folder.path);
  for (const std::string& name : list_folder(folder.path, ErrorCode::model_invalid)) {
    if (name.find(".safetensors") == std::string::npos || name.find(".json") != std::string::npos) continue;
    std::filesystem::resize_file(folder / name, 20000);
  }
  Stream stream(2);
  check_error(ErrorCode::model_invalid, {folder.path, "expected", "bytes from byte"},
              [&] { load_weights(config, checkpoint, MemoryLimit(0), stream); });
}

TEST_CASE("every tensor is needed and every shape is checked before packing") {
  for (const std::string& fixture : {kNineB, kTiny}) {
    const ModelFiles whole(fixture);
    for (const auto& [name, tensor] : whole.tensors) {
      INFO(name);
      const bool optional = name.find("log_decay") != std::string::npos || name.find("g_idx") != std::string::npos;
      const std::string module = name.substr(0, name.rfind('.'));
      ModelFiles files = whole;
      files.tensors.erase(name);
      if (optional) CHECK_NOTHROW(load(files));
      else check_error(ErrorCode::model_invalid, {"expected", module}, [&] { load(files); });

      files = whole;
      files.tensors[name].shape.push_back(1);
      check_error(ErrorCode::model_invalid,
                  {"model.safetensors: " + name + ": expected " + shape_text(tensor.shape) + ", found " +
                   shape_text(files.tensors[name].shape)},
                  [&] { load(files); });
    }
  }
  // The last tensor is wrong as well as a value of the first: the shape is what is reported.
  refused(ErrorCode::model_invalid, {"lm_head.weight: expected [96, 64], found [64, 96]"}, kNineB,
          [](ModelFiles& files) {
            files.tensors.at("lm_head.weight").shape = {64, 96};
            files.tensors.at("model.layers.0.input_layernorm.weight").bytes[1] = 0x7f;
            files.tensors.at("model.layers.0.input_layernorm.weight").bytes[0] = static_cast<char>(0xff);
          });
}

TEST_CASE("dtypes and values that cannot be") {
  refused(ErrorCode::unsupported,
          {"model.safetensors: model.layers.1.self_attn.z_proj.weight: expected F32 or F16 or BF16, found I16"}, kNineB,
          [](ModelFiles& files) { files.tensors.at("model.layers.1.self_attn.z_proj.weight").dtype = "I16"; });
  refused(ErrorCode::unsupported, {"model.embed_tokens.weight: expected F32 or F16 or BF16 or I8, found U8"}, kTiny,
          [](ModelFiles& files) { files.tensors.at("model.embed_tokens.weight").dtype = "U8"; });
  refused(ErrorCode::model_invalid, {"model.embed_tokens.scales: expected [320], found [160, 2]"}, kTiny,
          [](ModelFiles& files) { files.tensors.at("model.embed_tokens.scales").shape = {160, 2}; });
  refused(ErrorCode::model_invalid, {"model.norm.weight: expected finite values, found", "at 3"}, kNineB,
          [](ModelFiles& files) { files.tensors.at("model.norm.weight").bytes.replace(6, 2, "\x80\x7f"); });
  for (const float value : {0.25f, INFINITY, -INFINITY, NAN}) {
    refused(ErrorCode::model_invalid, {"model.layers.1.self_attn.log_decay", "expected"}, kTiny,
            [value](ModelFiles& files) {
              std::memcpy(files.tensors.at("model.layers.1.self_attn.log_decay").bytes.data() + 8, &value, 4);
            });
  }
  refused(ErrorCode::model_invalid, {"model.layers.3.self_attn.log_decay[2]: expected at most 0, found 0.25"}, kTiny,
          [](ModelFiles& files) {
            const float value = 0.25f;
            std::memcpy(files.tensors.at("model.layers.3.self_attn.log_decay").bytes.data() + 8, &value, 4);
          });
}

TEST_CASE("log_decay replaces the fixed slopes, layer by layer") {
  ModelFiles files(kNineB);
  const std::vector<float> own = {-1, -0.5f, -0.25f, 0};
  files.tensors["model.layers.2.self_attn.log_decay"] = {"F32", {4}, bytes_of(own)};
  const Weights weights = load(files);
  CHECK(values_of(weights.layers[2].log_decay) == own);
  CHECK(values_of(weights.layers[1].log_decay) == std::vector<float>{-0.25f, -0.0625f, -0.015625f, -0.00390625f});
  files.config["lightning_layerwise_decay"] = true;
  CHECK(load(files).layers[1].log_decay[0] == doctest::Approx(-0.25 * (1 - 1 / 3.0 + 1e-5)).epsilon(1e-6));
}

TEST_CASE("biases: demanded, optional, unread") {
  refused(ErrorCode::model_invalid, {"model.layers.0.self_attn.q_proj.bias: expected [64], found no such tensor"},
          kNineB, [](ModelFiles& files) { files.config["attention_bias"] = true; });
  ModelFiles files(kNineB);
  const std::string bias = bytes_of(std::vector<float>(64, 0.5f));
  for (const char* name : {"0.self_attn.o_proj", "0.self_attn.o_gate", "1.self_attn.z_proj", "1.self_attn.q_proj"}) {
    files.tensors["model.layers." + std::string(name) + ".bias"] = {"F32", {64}, bias};
  }
  TemporaryFolder folder;
  files.write(folder.path);
  const Weights weights = load(folder.path);
  CHECK(weights.layers[0].o_proj.bias.size() == 64);
  CHECK(weights.layers[0].o_gate.bias[63] == 0.5f);
  CHECK(weights.layers[1].z_proj.bias.size() == 64);
  CHECK(weights.layers[1].q_proj.bias.empty());
  CHECK(unused_tensors(load_model_config(folder.path), Checkpoint(folder.path)) ==
        std::vector<std::string>{"model.layers.1.self_attn.q_proj.bias"});
}

TEST_CASE("a false switch lacks its tensors, and does not read them") {
  const std::vector<std::pair<std::string, std::vector<std::string>>> switches = {
      {"qk_norm", {"1.self_attn.q_norm", "1.self_attn.k_norm", "2.self_attn.q_norm", "2.self_attn.k_norm"}},
      {"use_output_norm", {"1.self_attn.o_norm", "2.self_attn.o_norm"}},
      {"use_output_gate", {"1.self_attn.z_proj", "2.self_attn.z_proj"}},
      {"attn_use_output_gate", {"0.self_attn.o_gate", "3.self_attn.o_gate"}}};
  for (const auto& [key, names] : switches) {
    INFO(key);
    ModelFiles files(kNineB);
    files.config[key] = false;
    TemporaryFolder folder;
    files.write(folder.path);
    std::vector<std::string> tensors;
    for (const std::string& name : names) tensors.push_back("model.layers." + name + ".weight");
    std::vector<std::string> sorted = tensors;
    std::sort(sorted.begin(), sorted.end());
    CHECK(unused_tensors(load_model_config(folder.path), Checkpoint(folder.path)) == sorted);
    for (const std::string& tensor : tensors) files.tensors.erase(tensor);
    const Weights weights = load(files);
    if (key == "qk_norm") CHECK((weights.layers[1].q_norm.empty() && weights.layers[1].k_norm.empty()));
    if (key == "use_output_norm") CHECK(weights.layers[1].o_norm.empty());
    if (key == "use_output_gate") CHECK_FALSE(weights.layers[1].z_proj.exists());
    if (key == "attn_use_output_gate") CHECK_FALSE(weights.layers[0].o_gate.exists());
  }
}

TEST_CASE("fewer lightning K/V heads, other head sizes") {
  ModelFiles files(kNineB);
  files.config["lightning_nkv"] = 2;
  check_error(ErrorCode::model_invalid, {"model.layers.1.self_attn.k_proj.weight: expected [32, 64], found [64, 64]"},
              [&] { load(files); });
  for (const char* layer : {"1", "2"}) {
    for (const char* name : {".self_attn.k_proj.weight", ".self_attn.v_proj.weight"}) {
      FileTensor& tensor = files.tensors.at(std::string("model.layers.") + layer + name);
      tensor = {tensor.dtype, {32, 64}, tensor.bytes.substr(0, 32 * 64 * 2)};
    }
  }
  CHECK(load(files).layers[2].v_proj.weight.out_features == 32);
}

TEST_CASE("tied heads share the embedding, untied ones may be quantised") {
  ModelFiles files(kTiny);
  files.tensors["lm_head.weight"] = {"BF16", {320, 64}, std::string(320 * 64 * 2, '\0')};
  TemporaryFolder folder;
  files.write(folder.path);
  CHECK(unused_tensors(load_model_config(folder.path), Checkpoint(folder.path)) ==
        std::vector<std::string>{"lm_head.weight"});

  files.config["tie_word_embeddings"] = false;
  Weights weights = load(files);
  CHECK(weights.head().form == MatrixForm::bf16);
  files.tensors.erase("lm_head.weight");
  check_error(ErrorCode::model_invalid, {"lm_head.weight or .qweight: expected [320, 64], found no such tensor"},
              [&] { load(files); });
  // Any layer's tensors of the right shape will do.
  files.config["vocab_size"] = 128;
  for (const char* part : {".qweight", ".qzeros", ".scales", ".g_idx"}) {
    files.tensors[std::string("lm_head") + part] = files.tensors.at(std::string("model.layers.0.mlp.up_proj") + part);
  }
  FileTensor& embedding = files.tensors.at("model.embed_tokens.weight");
  embedding = {"I8", {128, 64}, embedding.bytes.substr(0, 128 * 64)};
  FileTensor& scales = files.tensors.at("model.embed_tokens.scales");
  scales = {"F16", {128}, scales.bytes.substr(0, 256)};
  files.config["eos_token_id"] = 5;
  weights = load(files);
  CHECK(weights.head().form == MatrixForm::int4);
  CHECK(unpack(weights.head()) == gptq_values(files.tensors, "lm_head", 64));
}

TEST_CASE("quantised layers: what is missing, double or undescribed") {
  const std::string module = "model.layers.1.mlp.up_proj";
  refused(ErrorCode::model_invalid, {module + ".qzeros: expected beside .qweight, found no such tensor"}, kTiny,
          [&](ModelFiles& files) { files.tensors.erase(module + ".qzeros"); });
  refused(ErrorCode::model_invalid, {module + ": expected .weight or .qweight, found both"}, kTiny,
          [&](ModelFiles& files) {
            files.tensors[module + ".weight"] = {"BF16", {128, 64}, std::string(128 * 64 * 2, '\0')};
          });
  refused(ErrorCode::model_invalid,
          {".qweight: expected quantization_config in config.json or quantize_config.json, found neither"}, kTiny,
          [&](ModelFiles& files) { files.config.erase("quantization_config"); });
  refused(ErrorCode::model_invalid, {"qzeros: expected [2, ", "found [1, "}, kTiny,
          [&](ModelFiles& files) { files.config["quantization_config"]["group_size"] = 32; });
  refused(ErrorCode::unsupported, {"expected in_features to be a multiple of group_size 128, found 64"}, kTiny,
          [&](ModelFiles& files) { files.config["quantization_config"]["group_size"] = 128; });
  refused(ErrorCode::model_invalid, {"model.embed_tokens.scales: expected beside an I8 weight, found no such tensor"},
          kTiny, [&](ModelFiles& files) { files.tensors.erase("model.embed_tokens.scales"); });
  // A dense layer among quantised ones is a usual mix (gates kept in bf16).
  ModelFiles files(kTiny);
  for (const char* part : {".qweight", ".qzeros", ".scales", ".g_idx"}) files.tensors.erase(module + part);
  files.tensors[module + ".weight"] = {"BF16", {128, 64}, std::string(128 * 64 * 2, '\0')};
  const Weights weights = load(files);
  CHECK(weights.layers[1].up_proj.weight.form == MatrixForm::bf16);
  CHECK(weights.layers[1].gate_proj.weight.form == MatrixForm::int4);
}
