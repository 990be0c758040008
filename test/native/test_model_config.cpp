// native/model_config.h: the published configuration and its variants as read, the fixed decays as numbers, and every
// kind of refusal with the file, the key, what was expected and what was found.
#include <doctest/doctest.h>

#include <cmath>

#include "native/model_config.h"
#include "test/native/model_files.h"

using namespace sala;
using nlohmann::json;

namespace {

json nine_b() { return json::parse(read_text(kTestDir + "/fixtures/nine-b-layout/config.json")); }

ModelConfig parse(const json& config) { return parse_model_config(config.dump(), "config.json"); }

json with(const std::string& pointer, const json& value) {
  json config = nine_b();
  config[json::json_pointer(pointer)] = value;
  return config;
}

json without(const std::string& key) {
  json config = nine_b();
  config.erase(key);
  return config;
}

}  // namespace

TEST_CASE("the published configuration") {
  const ModelConfig config = load_model_config(kTestDir + "/fixtures/nine-b-layout");
  CHECK(config.hidden_size == 4096);
  CHECK(config.intermediate_size == 16384);
  CHECK(config.num_hidden_layers == 32);
  CHECK(config.vocab_size == 73448);
  CHECK(config.num_attention_heads == 32);
  CHECK(config.num_key_value_heads == 2);
  CHECK(config.head_dim == 128);
  CHECK(config.lightning_nh == 32);
  CHECK(config.lightning_nkv == 32);
  CHECK(config.lightning_head_dim == 128);
  CHECK(config.lightning_scale == doctest::Approx(0.08838834764831845));
  CHECK(config.lightning_use_rope);
  CHECK_FALSE(config.lightning_layerwise_decay);
  CHECK_FALSE(config.attn_use_rope);
  CHECK(config.qk_norm);
  CHECK(config.use_output_norm);
  CHECK(config.use_output_gate);
  CHECK(config.attn_use_output_gate);
  CHECK_FALSE(config.attention_bias);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK(config.rms_norm_eps == 1e-6f);
  CHECK(config.rope_theta == 10000.0f);
  CHECK(config.scale_emb == 12.0f);
  CHECK(config.residual_scale() == doctest::Approx(0.24748737341529165));
  CHECK(config.logits_divisor() == 16.0f);
  CHECK(config.eos_token_ids == std::vector<int32_t>{2, 73440});
  CHECK(config.n_sparse_layers() == 8);
  for (const int layer : {0, 9, 16, 17, 22, 29, 30, 31}) CHECK(config.mixer_types[layer] == MixerType::sparse);
  REQUIRE(config.sparse_config);
  CHECK(config.sparse_config->n_selected() == 96);
  CHECK(config.sparse_config->init_blocks == 1);
  CHECK(config.sparse_config->dense_len == 8192);
  CHECK_FALSE(config.sparse_config->use_nope);
  CHECK_FALSE(config.attn_logit_log_scale);
  CHECK_FALSE(config.quantization_config);
}

TEST_CASE("the embedded model's additions") {
  const ModelConfig config = load_model_config(kTestDir + "/golden/k-embedded/model");
  CHECK(config.attention_bias);
  CHECK(config.tie_word_embeddings);
  CHECK(config.residual_scale() == 1.0f);
  CHECK(config.logits_divisor() == 1.0f);
  REQUIRE(config.attn_logit_log_scale);
  CHECK(config.attn_logit_log_scale->offset == 50);
  CHECK(config.attn_logit_log_scale->from == 200);
  REQUIRE(config.quantization_config);
  CHECK(config.quantization_config->group_size == 128);
  CHECK(config.quantization_config->sym);
  CHECK_FALSE(config.quantization_config->desc_act);
  CHECK(config.quantization_config->checkpoint_format == CheckpointFormat::gptq);
}

TEST_CASE("variants change what they name") {
  CHECK(parse(with("/lightning_scale", "1/d")).lightning_scale == 1.0f / 128);
  CHECK(parse(with("/lightning_layerwise_decay", true)).lightning_layerwise_decay);
  CHECK(parse(with("/lightning_nkv", 8)).lightning_nkv == 8);
  CHECK(parse(with("/lightning_head_dim", 64)).lightning_scale == 0.125f);
  CHECK(parse(with("/sparse_config/use_nope", true)).sparse_config->use_nope);
  CHECK(parse(with("/attn_use_rope", true)).attn_use_rope);
  CHECK_FALSE(parse(with("/lightning_use_rope", false)).lightning_use_rope);
  CHECK_FALSE(parse(with("/qk_norm", false)).qk_norm);
  CHECK_FALSE(parse(with("/use_output_norm", false)).use_output_norm);
  CHECK_FALSE(parse(with("/use_output_gate", false)).use_output_gate);
  CHECK_FALSE(parse(with("/attn_use_output_gate", false)).attn_use_output_gate);
  CHECK(parse(with("/attention_bias", true)).attention_bias);
  CHECK(parse(with("/eos_token_id", 7)).eos_token_ids == std::vector<int32_t>{7});
  CHECK_FALSE(parse(without("sparse_config")).sparse_config);
  CHECK_FALSE(parse(with("/sparse_config", nullptr)).sparse_config);
  CHECK(parse(with("/attn_logit_log_scale", {{"offset", 0}, {"from", 1.5}})).attn_logit_log_scale->from == 1.5);
  for (const char* name : {"lightning-attn", "lightning_attn", "lightning"}) {
    CHECK(parse(with("/mixer_types/0", name)).mixer_types[0] == MixerType::lightning);
  }
  for (const char* name : {"minicpm4", "minicpm", "standard", "attention", "attn"}) {
    CHECK(parse(with("/mixer_types/1", name)).mixer_types[1] == MixerType::sparse);
  }
}

TEST_CASE("keys that may be absent") {
  const std::vector<const char*> keys = {
      "head_dim",           "lightning_nh",       "lightning_nkv",        "lightning_head_dim",
      "lightning_scale",    "lightning_use_rope", "attn_use_rope",        "qk_norm",
      "use_output_norm",    "use_output_gate",    "attn_use_output_gate", "attention_bias",
      "rms_norm_eps",       "rope_theta",         "rope_scaling",         "hidden_act",
      "tie_word_embeddings"};
  json config = nine_b();
  for (const char* key : keys) config.erase(key);
  const ModelConfig parsed = parse(config);
  CHECK(parsed.head_dim == 128);
  CHECK(parsed.lightning_nh == 32);
  CHECK(parsed.lightning_nkv == 32);
  CHECK(parsed.lightning_head_dim == 128);
  CHECK(parsed.lightning_scale == doctest::Approx(0.08838834764831845));
  CHECK(parsed.qk_norm);
  CHECK(parsed.attn_use_output_gate);
  CHECK(parsed.rope_theta == 10000.0f);
}

TEST_CASE("keys that may not be absent") {
  for (const char* key :
       {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "mixer_types",
        "num_attention_heads", "num_key_value_heads", "scale_emb", "scale_depth", "dim_model_base", "eos_token_id"}) {
    check_error(ErrorCode::model_invalid, {"config.json: ", key, ": expected", "found nothing"},
                [&] { parse(without(key)); });
    check_error(ErrorCode::model_invalid, {"config.json: ", key, "found null"},
                [&] { parse(with(std::string("/") + key, nullptr)); });
  }
  for (const char* key : {"init_blocks", "window_size", "topk", "dense_len"}) {
    json config = nine_b();
    config["sparse_config"].erase(key);
    check_error(ErrorCode::model_invalid, {"config.json: sparse_config: ", key, "found nothing"},
                [&] { parse(config); });
  }
}

TEST_CASE("what means something we do not do is refused by name") {
  const auto refused = [](const std::string& pointer, const json& value, const std::string& expected) {
    check_error(ErrorCode::unsupported,
                {"config.json: ", pointer.substr(pointer.rfind('/') + 1), "expected " + expected},
                [&] { parse(with(pointer, value)); });
  };
  refused("/model_type", "llama", "minicpm_sala, found \"llama\"");
  refused("/hidden_act", "gelu", "\"silu\", found \"gelu\"");
  refused("/rope_scaling", {{"rope_type", "yarn"}}, "null, found {\"rope_type\":\"yarn\"}");
  refused("/rope_parameters", {{"rope_theta", 5}}, "null");
  refused("/lightning_scale", "1/d^2", "1/sqrt(d) or 1/d, found \"1/d^2\"");
  refused("/sparse_config/kernel_size", 64, "32, found 64");
  refused("/sparse_config/kernel_stride", 32, "16, found 32");
  refused("/sparse_config/block_size", 128, "64, found 128");
  refused("/sparse_config/window_size", 100, "a multiple of block_size, 64, found 100");
  check_error(ErrorCode::unsupported,
              {"config.json: mixer_types[3]: expected lightning-attn or minicpm4, found \"mamba\""},
              [&] { parse(with("/mixer_types/3", "mamba")); });
}

TEST_CASE("wrong types and absurd sizes") {
  const auto refused = [](const std::string& pointer, const json& value, const std::string& expected_and_found) {
    check_error(ErrorCode::model_invalid, {"config.json: ", pointer.substr(pointer.rfind('/') + 1), expected_and_found},
                [&] { parse(with(pointer, value)); });
  };
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "lightning_nh", "lightning_nkv", "lightning_head_dim"}) {
    const std::string pointer = std::string("/") + key;
    for (const json& value :
         {json(0), json(-1), json(1e30), json(64.0), json("64"), json(true), json::array(), json::object(),
          json(INT64_MAX), json(UINT64_MAX), json(INT64_MIN), json(int64_t{1} << 32 | 64)}) {
      refused(pointer, value, "expected an integer from 1 to ");
    }
  }
  refused("/hidden_size", (1 << 20) + 1, "expected an integer from 1 to 1048576, found 1048577");
  refused("/qk_norm", 1, "expected true or false, found 1");
  refused("/scale_emb", "12", "expected a number above 0");
  refused("/scale_emb", -1, "found -1");
  refused("/scale_emb", 1e300, "found 1e+300");
  refused("/dim_model_base", 0, "found 0");
  refused("/rms_norm_eps", 0.0, "found 0.0");
  refused("/rope_theta", false, "found false");
  refused("/lightning_scale", 0.5, "found 0.5");
  refused("/model_type", 1, "found 1");
  refused("/sparse_config", 1, "expected an object, found 1");
  refused("/sparse_config/topk", -1, "found -1");
  refused("/sparse_config/window_size", 1e9, "found 1000000000.0");
  refused("/sparse_config/dense_len", int64_t{1} << 41, "found 2199023255552");
  refused("/attn_logit_log_scale", {{"offset", 500}}, "from: expected a number above 0");
  refused("/attn_logit_log_scale", {{"offset", 0}, {"from", 1}}, "from: expected a number above 1");
  refused("/attn_logit_log_scale", {{"offset", -1}, {"from", 9}}, "offset: expected a number above -1");
  refused("/mixer_types", "minicpm4", "expected a list of 32 names");
  refused("/mixer_types", {"minicpm4"}, "expected a list of 32 names, one a layer, found 1");
  check_error(ErrorCode::model_invalid, {"mixer_types[2]", "found 5"}, [&] { parse(with("/mixer_types/2", 5)); });
  for (const json& value :
       {json(-1), json(73448), json("2"), json(2.0), json::array(), json({2, -1}), json(UINT64_MAX)}) {
    refused("/eos_token_id", value, "expected a token id below vocab_size or a list of them");
  }
  refused("/num_key_value_heads", 3, "expected a multiple of num_key_value_heads (3), found 32");
  refused("/lightning_nkv", 64, "expected a multiple of lightning_nkv (64), found 32");
  refused("/lightning_head_dim", 127, "expected an even number to rotate, found 127");
  json wide = with("/num_attention_heads", 16384);
  wide["head_dim"] = 4096;
  check_error(ErrorCode::model_invalid, {"num_attention_heads * head_dim", "16384 * 4096"}, [&] { parse(wide); });
}

TEST_CASE("what is no configuration at all") {
  const auto refused = [](const std::string& text, const std::string& found) {
    check_error(ErrorCode::model_invalid, {"some/config.json: expected ", found},
                [&] { parse_model_config(text, "some/config.json"); });
  };
  refused("", "JSON");
  refused("{\"hidden_size\": 1", "parse error");
  refused("[1]", "an object, found [1]");
  refused("null", "found null");
  refused("{\"a\": \"\xff\"}", "ill-formed UTF-8");
  refused("{\"a\": 1e999}", "JSON");
  refused("{\"a\": 1, \"b\": {\"a\": 2}, \"a\": 3}", "every key once, found \"a\" twice");
  refused(std::string(100000, '['), "levels deep");
  const std::string text = nine_b().dump();
  for (size_t n = 0; n < text.size(); n += 7) {
    check_error(ErrorCode::model_invalid, {"cut.json"}, [&] { parse_model_config(text.substr(0, n), "cut.json"); });
  }
}

TEST_CASE("quantization_config, in config.json or beside it") {
  const json gptq = {{"quant_method", "gptq"}, {"bits", 4},        {"group_size", 64},
                     {"sym", false},           {"desc_act", true}, {"checkpoint_format", "gptq_v2"}};
  const ModelConfig inside = parse(with("/quantization_config", gptq));
  const ModelConfig beside = parse_model_config(nine_b().dump(), "config.json", gptq.dump());
  for (const ModelConfig& config : {inside, beside}) {
    REQUIRE(config.quantization_config);
    CHECK(config.quantization_config->group_size == 64);
    CHECK_FALSE(config.quantization_config->sym);
    CHECK(config.quantization_config->desc_act);
    CHECK(config.quantization_config->checkpoint_format == CheckpointFormat::gptq_v2);
  }
  // What AutoGPTQ writes: no method, no format, and keys that say nothing about the layout.
  const json older = {{"bits", 4},         {"group_size", 128},      {"damp_percent", 0.01},
                      {"desc_act", false}, {"static_groups", false}, {"sym", true}};
  const ModelConfig auto_gptq = parse_model_config(nine_b().dump(), "config.json", older.dump());
  REQUIRE(auto_gptq.quantization_config);
  CHECK(auto_gptq.quantization_config->checkpoint_format == CheckpointFormat::gptq);
  // config.json comes first.
  CHECK(
      parse_model_config(with("/quantization_config", gptq).dump(), "", older.dump()).quantization_config->group_size ==
      64);

  const auto refused = [&](const std::string& key, const json& value, ErrorCode code, const std::string& expected) {
    json changed = gptq;
    changed[key] = value;
    check_error(code, {"config.json: quantization_config: " + key + ": expected " + expected},
                [&] { parse(with("/quantization_config", changed)); });
    check_error(code, {"q.json: " + key + ": expected " + expected},
                [&] { parse_model_config(nine_b().dump(), "config.json", changed.dump(), "q.json"); });
  };
  refused("bits", 8, ErrorCode::unsupported, "4, found 8");
  refused("bits", "4", ErrorCode::model_invalid, "an integer");
  refused("quant_method", "awq", ErrorCode::unsupported, "\"gptq\", found \"awq\"");
  refused("group_size", 16, ErrorCode::unsupported, "32, 64 or 128, found 16");
  refused("group_size", -1, ErrorCode::unsupported, "32, 64 or 128, found -1");
  refused("group_size", 0.5, ErrorCode::model_invalid, "an integer");
  refused("checkpoint_format", "marlin", ErrorCode::unsupported, "gptq or gptq_v2, found \"marlin\"");
  refused("checkpoint_format", 2, ErrorCode::model_invalid, "gptq or gptq_v2, found 2");
  refused("pack_dtype", "int16", ErrorCode::unsupported, "\"int32\"");
  refused("sym", "yes", ErrorCode::model_invalid, "true or false");
}

TEST_CASE("model folders") {
  check_error(ErrorCode::model_not_found, {"/nowhere/at/all", "found no folder"},
              [] { load_model_config("/nowhere/at/all"); });
  TemporaryFolder folder;
  check_error(ErrorCode::model_not_found, {folder.path, "found no config.json"},
              [&] { load_model_config(folder.path); });
  std::filesystem::create_directory(folder / "config.json");
  check_error(ErrorCode::model_invalid, {folder / "config.json", "a folder"}, [&] { load_model_config(folder.path); });
  std::filesystem::remove(folder / "config.json");
  write_text(folder / "config.json", nine_b().dump());
  CHECK_FALSE(load_model_config(folder.path).quantization_config);
  write_text(folder / "quantize_config.json", R"({"bits": 4, "group_size": 32})");
  CHECK(load_model_config(folder.path).quantization_config->group_size == 32);
  write_text(folder / "quantize_config.json", "");  // a file without text is not the same as no file
  check_error(ErrorCode::model_invalid, {folder / "quantize_config.json", "JSON"},
              [&] { load_model_config(folder.path); });
}

TEST_CASE("fixed decays") {
  const auto slopes = [](int n_heads, bool layerwise, int layer) {
    json config = nine_b();
    config["lightning_nh"] = config["lightning_nkv"] = n_heads;
    config["lightning_layerwise_decay"] = layerwise;
    std::vector<float> log_decay = fixed_log_decay(parse(config), layer);
    for (float& value : log_decay) value = -value;
    return log_decay;
  };
  const std::vector<float> of_32 = slopes(32, false, 5);
  REQUIRE(of_32.size() == 32);
  for (int h = 0; h < 32; ++h) CHECK(of_32[h] == doctest::Approx(std::pow(2.0, -(h + 1) / 4.0)).epsilon(1e-6));
  CHECK(of_32 == slopes(32, false, 31));

  // Eight powers of two for heads 0–7, then every other slope for sixteen heads.
  const std::vector<float> of_14 = slopes(14, false, 0);
  REQUIRE(of_14.size() == 14);
  for (int h = 0; h < 8; ++h) CHECK(of_14[h] == std::exp2(-(h + 1.0f)));
  for (int h = 8; h < 14; ++h) CHECK(of_14[h] == doctest::Approx(std::exp2(-(h - 8 + 0.5))).epsilon(1e-6));
  CHECK(slopes(1, false, 0) == std::vector<float>{1.0f / 256});

  CHECK(slopes(32, true, 0)[0] == doctest::Approx(0.84089642 * (1 + 1e-5)).epsilon(1e-6));
  CHECK(slopes(32, true, 31)[3] == doctest::Approx(0.5 * 1e-5).epsilon(1e-4));
  CHECK(slopes(32, true, 10)[3] == doctest::Approx(0.5 * (1 - 10 / 31.0 + 1e-5)).epsilon(1e-6));
}
