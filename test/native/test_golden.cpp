// The engine against test/golden: exact runs (logits, hidden rows, selected blocks, greedy ids), composed context, reading and
// focus. fp32 activations; tolerances of test/golden/README.md. Every case runs on the best table, shorter ones on the reference too.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "kernels/backend.h"
#include "native/engine.h"
#include "test/native/engine_calls.h"

using namespace sala;
using nlohmann::json;

namespace {

const std::string kGolden = std::string(SALA_TEST_DIR) + "/golden/";

json load_json(const std::string& path) {
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), path);
  return json::parse(file);
}

// Numbers expected of a case, by tensor name.
class Expected {
 public:
  explicit Expected(const std::string& path) : file_(path, ErrorCode::internal) {
    for (TensorView& tensor : parse_safetensors(file_.data(), file_.size(), path)) tensors_.emplace(tensor.name, tensor);
  }
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const std::vector<int64_t>& shape(const std::string& name) const { return tensors_.at(name).shape; }
  template <class T>
  std::vector<T> values(const std::string& name) const {
    const TensorView& tensor = tensors_.at(name);
    std::vector<T> values(tensor.nbytes / sizeof(T));
    std::memcpy(values.data(), tensor.data, tensor.nbytes);
    return values;
  }

 private:
  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
};

// ‖found − expected‖ / ‖expected‖, of all rows and of the worst one.
void check_close(const float* found, const std::vector<float>& expected, size_t row_size, double all_limit, double row_limit) {
  double difference = 0, norm = 0, worst = 0;
  for (size_t row = 0; row < expected.size() / row_size; ++row) {
    double d = 0, n = 0;
    for (size_t i = row * row_size; i < (row + 1) * row_size; ++i) {
      d += (double(found[i]) - expected[i]) * (double(found[i]) - expected[i]);
      n += double(expected[i]) * expected[i];
    }
    difference += d;
    norm += n;
    worst = std::max(worst, std::sqrt(d / n));
  }
  CHECK(std::sqrt(difference / norm) <= all_limit);
  CHECK(worst <= row_limit);
}

std::unique_ptr<Engine> load(const std::string& model_dir, const char* backend, int n_threads = 2) {
  setenv("KERNEL_BACKEND", backend, 1);
  EngineOptions options;
  options.model_dir = model_dir;
  options.activations = Activations::fp32;
  options.n_threads = n_threads;
  auto engine = std::make_unique<Engine>(options);
  unsetenv("KERNEL_BACKEND");
  return engine;
}

// The plain reference takes a minute for the long runs; it is held against the best table on every operator in test/kernels.
constexpr size_t kReferenceTokens = 200;

std::vector<std::string> tables() {
  std::vector<std::string> names{"reference"};
  if (best_backend().name != names.front()) names.push_back(best_backend().name);
  return names;
}

std::vector<int32_t> encode_run(Engine& engine, const json& run) {
  std::vector<SegmentInput> segments;
  const json headers = run.value("headers", json::array());
  for (size_t i = 0; i < run["segments"].size(); ++i) {
    segments.push_back({numbered_key(int(i)), run["segments"][i].get<std::vector<int32_t>>(), headers.empty() ? 0 : headers[i].get<int>()});
  }
  return encode(engine, segments).handles;
}

void check_exact(const std::string& name) {
  const Expected expected(kGolden + name + "/expected.safetensors");
  const json cases = load_json(kGolden + name + "/tokens.json");
  for (const std::string& backend : tables()) {
    auto engine = load(kGolden + name + "/model", backend.c_str());
    const ModelConfig& config = engine->model().config;
    const size_t vocab_size = config.vocab_size;
    for (const json& run : cases["runs"]) {
      const std::string r = run["name"];
      INFO(name, " ", r, " on ", backend);
      const auto tokens = run["tokens"].get<std::vector<int32_t>>();
      if (backend == "reference" && tokens.size() > kReferenceTokens) continue;
      const int n = int(tokens.size()), n_decode = run["decode"];
      const int tail = engine->create_exact_tail(n, n + n_decode);
      const PrefillResult result = prefill(*engine, tail, tokens, n, true);

      const auto positions = expected.values<int32_t>(r + ".logits_pos");
      std::vector<float> found;
      for (int32_t p : positions) found.insert(found.end(), result.logits.begin() + p * vocab_size, result.logits.begin() + (p + 1) * vocab_size);
      check_close(found.data(), expected.values<float>(r + ".logits"), vocab_size, 5e-5, 5e-4);

      const auto top5 = expected.values<int32_t>(r + ".top5");
      int n_wrong = 0;
      for (int i = 0; i < n; ++i) {
        const float* row = result.logits.data() + i * vocab_size;
        n_wrong += std::max_element(row, row + vocab_size) - row != top5[i * 5];
      }
      CHECK(n_wrong == 0);

      CHECK(result.blocks.empty() == !run["sparse"].get<bool>());
      for (const SelectedBlocks& selected : result.blocks) {
        const std::string key = r + ".selected." + std::to_string(selected.layer);
        REQUIRE(expected.has(key));
        REQUIRE(expected.shape(key)[2] == selected.width);
        const auto ids = expected.values<int32_t>(key);
        const auto at = expected.values<int32_t>(r + ".selected_pos");
        const size_t row = size_t(config.num_key_value_heads) * selected.width;
        int n_rows_wrong = 0;
        for (size_t i = 0; i < at.size(); ++i) {
          n_rows_wrong += !std::equal(ids.begin() + i * row, ids.begin() + (i + 1) * row, selected.ids.begin() + at[i] * row);
        }
        CHECK(n_rows_wrong == 0);
      }

      if (n_decode > 0) {
        DecodeOptions options;
        options.max_tokens = n_decode;
        options.logits = true;
        const auto decoded = decode(*engine, tail, options);
        CHECK(decoded.ids == expected.values<int32_t>(r + ".decode_ids"));
        check_close(decoded.logits.data(), expected.values<float>(r + ".decode_logits"), vocab_size, 5e-5, 5e-4);
      }

      // The residual stream tells which layer goes wrong first.
      Sequence sequence(config, n, true);
      sequence.final_length = n;
      std::vector<SequencePart> parts;
      parts.push_back({&sequence, nullptr, tokens});
      Forward forward(engine->model(), std::move(parts));
      const auto hidden = expected.values<float>(r + ".hidden");
      const auto hidden_positions = expected.values<int32_t>(r + ".hidden_pos");
      for (int layer = 0;; ++layer) {
        INFO("layer ", layer);
        std::vector<float> rows;
        for (int32_t p : hidden_positions) {
          const float* h = forward.hidden(0) + size_t(p) * config.hidden_size;
          rows.insert(rows.end(), h, h + config.hidden_size);
        }
        const std::vector<float> wanted(hidden.begin() + layer * rows.size(), hidden.begin() + (layer + 1) * rows.size());
        check_close(rows.data(), wanted, config.hidden_size, 5e-5, 5e-4);
        if (forward.done()) break;
        forward.step();
      }
    }
  }
}

void check_composed(const std::string& name) {
  const Expected expected(kGolden + name + "/expected.safetensors");
  const json cases = load_json(kGolden + name + "/tokens.json");
  for (const std::string& backend : tables()) {
    auto engine = load(kGolden + "k-embedded/model", backend.c_str());
    const size_t vocab_size = engine->model().config.vocab_size;
    for (const json& run : cases["runs"]) {
      const std::string r = run["name"];
      INFO(name, " ", r, " on ", backend);
      const auto prefix = run["prefix"].get<std::vector<int32_t>>();
      const auto tail_tokens = run["tail"].get<std::vector<int32_t>>();
      set_prefix(*engine, prefix);
      const auto handles = encode_run(*engine, run);
      const TailStart start = run.value("tail_starts_from", "prefix") == "empty" ? TailStart::empty : TailStart::prefix;

      if (run.contains("span")) {
        ReadInput input;
        input.tail = tail_tokens;
        input.span_begin = run["span"][0];
        input.span_end = run["span"][1];
        input.segments = handles;
        input.layer = run["layer"];
        input.heads = run["heads"].get<std::vector<int>>();
        input.starts_from = start;
        const auto shares = wait_for<std::vector<float>>([&](auto done) { engine->read(input, Priority::prefill, done); });
        const auto wanted = expected.values<float>(r + ".shares");
        REQUIRE(shares.size() == wanted.size());
        for (size_t i = 0; i < shares.size(); ++i) CHECK(std::fabs(shares[i] - wanted[i]) <= 1e-5);
      }

      TailInput input;
      if (run.contains("focus")) {
        for (int pick : run["focus"]) input.view.push_back(handles[pick]);
        input.hidden = run["hidden"].get<std::vector<int32_t>>();
      } else {
        input.view = handles;
      }
      input.starts_from = start;
      if (run.contains("dense_scope_tokens")) input.dense_scope_tokens = run["dense_scope_tokens"].get<int>();
      input.max_tokens = int(prefix.size() + tail_tokens.size());
      const int n = int(tail_tokens.size());
      const int tail = engine->create_tail(input);
      const PrefillResult result = prefill(*engine, tail, tail_tokens, n, true);
      check_close(result.logits.data(), expected.values<float>(r + ".logits"), vocab_size, 5e-5, 5e-4);
      for (const SelectedBlocks& selected : result.blocks) {
        const std::string key = r + ".selected." + std::to_string(selected.layer);
        REQUIRE(expected.has(key));
        CHECK(selected.ids == expected.values<int32_t>(key));
      }

      engine->release_tail(tail);
      if (backend == "reference") {
        engine->release_segments(handles);
        continue;
      }
      // The same tail a token at a time gives the same bits.
      const int again = engine->create_tail(input);
      std::vector<float> one_by_one;
      for (int32_t token : tail_tokens) {
        const auto step = prefill(*engine, again, {token}, 1, false);
        one_by_one.insert(one_by_one.end(), step.logits.begin(), step.logits.end());
      }
      CHECK(one_by_one == result.logits);
      engine->release_tail(again);
      engine->release_segments(handles);
    }
  }
}

}  // namespace

TEST_CASE("golden: short dense prompts") { check_exact("a-short-dense"); }
TEST_CASE("golden: small sparse prompts") { check_exact("b-sparse-small"); }
TEST_CASE("golden: a hybrid derived from Qwen2") { check_exact("h-qwen2-hybrid"); }
TEST_CASE("golden: the embedded model's layout") { check_exact("k-embedded"); }
TEST_CASE("golden: composed context") { check_composed("s-composed"); }
TEST_CASE("golden: composed context with selected blocks") { check_composed("t-composed-sparse"); }
TEST_CASE("golden: reading and focus") { check_composed("u-focus"); }

// The real weights. Greedy ids must not part with fp32 activations; with int8 ones they may where a token leads by little.
TEST_CASE("golden: the embedded model answers") {
  const std::string model = std::string(SALA_TEST_DIR) + "/../models/sala-coder-0.5b";
  const json cases = load_json(kGolden + "r-embedded-model/expected.json");
  auto engine = load(model, best_backend().name);
  const std::vector<int32_t> prefix = cases["runs"][0]["prefix"];
  set_prefix(*engine, prefix);
  for (const json& run : cases["runs"]) {
    INFO(run["name"]);
    REQUIRE(run["prefix"].get<std::vector<int32_t>>() == prefix);
    const auto handles = encode_run(*engine, run);
    const std::vector<int32_t> tail_tokens = run["tail"], ids = run["ids"];
    if (run.contains("shares")) {
      ReadInput input;
      input.tail = tail_tokens;
      input.span_begin = run["span"][0];
      input.span_end = run["span"][1];
      input.segments = handles;
      input.layer = cases["read"]["layer"];
      input.heads = cases["read"]["heads"].get<std::vector<int>>();
      input.starts_from = TailStart::empty;
      const auto shares = wait_for<std::vector<float>>([&](auto done) { engine->read(input, Priority::prefill, done); });
      for (size_t i = 0; i < shares.size(); ++i) CHECK(std::fabs(shares[i] - run["shares"][i].get<double>()) <= 1e-5);
    }
    TailInput input;
    input.view = handles;
    input.hidden = run["hidden"].get<std::vector<int32_t>>();
    input.starts_from = TailStart::empty;
    input.max_tokens = int(prefix.size() + tail_tokens.size() + ids.size());
    const int tail = engine->create_tail(input);
    const PrefillResult result = prefill(*engine, tail, tail_tokens, 1, false);
    for (size_t i = 0; i < run["first"]["ids"].size(); ++i) {
      CHECK(result.logits[run["first"]["ids"][i].get<int>()] == doctest::Approx(run["first"]["logits"][i].get<double>()).epsilon(1e-4));
    }
    DecodeOptions options;
    options.max_tokens = int(ids.size());
    const auto decoded = decode(*engine, tail, options);
    CHECK(decoded.ids == ids);
    engine->release_tail(tail);
    engine->release_segments(handles);
  }
}
