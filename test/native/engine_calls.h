// Engines for tests, and waiting for what they deliver.
#pragma once

#include <cstring>
#include <future>
#include <memory>
#include <string>

#include "native/engine.h"

namespace sala {

template <class Result, class Call>
Result wait_for(Call&& call) {
  std::promise<Result> promise;
  call([&](std::exception_ptr error, Result result) {
    if (error) {
      promise.set_exception(error);
    } else {
      promise.set_value(std::move(result));
    }
  });
  return promise.get_future().get();
}

inline PrefillResult prefill(Engine& engine, int tail, const std::vector<int32_t>& tokens, int n_logits = 0, bool blocks = false) {
  return wait_for<PrefillResult>([&](auto done) { engine.prefill(tail, tokens, Priority::prefill, n_logits, blocks, done); });
}

inline DecodeResult decode(Engine& engine, int tail, DecodeOptions options) {
  return wait_for<DecodeResult>([&](auto done) { engine.decode(tail, Priority::decode, options, done); });
}

inline EncodeResult encode(Engine& engine, const std::vector<SegmentInput>& segments, std::function<void(int)> on_segment = nullptr) {
  return wait_for<EncodeResult>([&](auto done) { engine.encode_segments(segments, Priority::ingest, on_segment, done); });
}

inline void set_prefix(Engine& engine, const std::vector<int32_t>& tokens) {
  wait_for<int>([&](auto done) { engine.set_prefix(tokens, done); });
}

// The tiny model, with what it needs to read and to store.
inline std::unique_ptr<Engine> load_tiny(const std::string& store_dir, int n_threads, uint64_t max_disk_bytes, const std::vector<int32_t>& prefix) {
  EngineOptions options;
  options.model_dir = std::string(SALA_TEST_DIR) + "/fixtures/tiny";
  options.n_threads = n_threads;
  options.store_dir = store_dir;
  options.store_identity = "tiny";
  options.max_disk_bytes = max_disk_bytes;
  options.read_layer = 2;
  options.read_heads = {0};
  auto engine = std::make_unique<Engine>(options);
  set_prefix(*engine, prefix);
  return engine;
}

inline SegmentKey numbered_key(int i) {
  SegmentKey key{};
  std::memcpy(key.data(), &i, sizeof i);
  return key;
}

}  // namespace sala
