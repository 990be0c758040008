// Waiting for what an Engine delivers, for tests.
#pragma once

#include <future>

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

inline SegmentKey numbered_key(int i) {
  SegmentKey key{};
  std::memcpy(key.data(), &i, sizeof i);
  return key;
}

}  // namespace sala
