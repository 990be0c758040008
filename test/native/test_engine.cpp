// The engine's promises on the tiny model with int8 activations: a segment's bytes depend on its own tokens alone, a tail's bits not
// on how it was split, what was stored is found again and damage is noticed, and cancelling loses nothing but the one request.
#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>

#include "test/native/engine_calls.h"

using namespace sala;
namespace fs = std::filesystem;

namespace {

const std::string kTiny = std::string(SALA_TEST_DIR) + "/fixtures/tiny";
const std::vector<int32_t> kPrefix{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

struct Folder {
  std::string path = (fs::temp_directory_path() / ("sala-test-" + std::to_string(std::random_device()()))).string();
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::unique_ptr<Engine> load(const std::string& segments_dir = "", int n_threads = 2) {
  EngineOptions options;
  options.model_dir = kTiny;
  options.n_threads = n_threads;
  options.segments_dir = segments_dir;
  auto engine = std::make_unique<Engine>(options);
  set_prefix(*engine, kPrefix);
  return engine;
}

std::vector<SegmentInput> random_segments(int n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<SegmentInput> segments;
  for (int i = 0; i < n; ++i) {
    SegmentInput segment;
    segment.key = numbered_key(i);
    segment.n_header_tokens = 1 + int(random() % 8);
    const int length = segment.n_header_tokens + 1 + int(random() % (i % 3 == 0 ? 490 : 60));
    for (int t = 0; t < length; ++t) segment.tokens.push_back(int32_t(random() % 256));
    segments.push_back(segment);
  }
  return segments;
}

std::string file_bytes(const std::string& folder, const SegmentKey& key) {
  std::ifstream file(segment_path(folder, key), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const EngineError& error) {
    return error.code();
  }
  return ErrorCode::internal;
}

}  // namespace

TEST_CASE("engine: a segment's bytes do not depend on its neighbours, their order, or the number of threads") {
  const auto segments = random_segments(24, 7);
  Folder together, alone, shuffled;
  encode(*load(together.path, 2), segments);
  {
    auto engine = load(alone.path, 1);
    for (const SegmentInput& segment : segments) encode(*engine, {segment});
  }
  auto order = segments;
  std::shuffle(order.begin(), order.end(), std::mt19937(11));
  encode(*load(shuffled.path, 2), order);
  for (const SegmentInput& segment : segments) {
    const std::string bytes = file_bytes(together.path, segment.key);
    CHECK(bytes.size() > 1000);
    CHECK((bytes == file_bytes(alone.path, segment.key)));
    CHECK((bytes == file_bytes(shuffled.path, segment.key)));
  }
}

TEST_CASE("engine: answers are the same from memory, from the file, and after a restart; damage is noticed and healed") {
  const auto segments = random_segments(5, 3);
  const std::vector<int32_t> question{20, 21, 22, 23, 24, 25, 26};
  const auto logits = [&](Engine& engine, const std::vector<int32_t>& handles) {
    TailInput input;
    input.view = handles;
    input.starts_from = TailStart::empty;
    input.max_tokens = 64;
    const int tail = engine.create_tail(input);
    auto result = prefill(engine, tail, question, int(question.size()));
    engine.release_tail(tail);
    return result.logits;
  };
  Folder store;
  auto in_memory = load();
  const auto expected = logits(*in_memory, encode(*in_memory, segments).handles);
  {
    auto first = load(store.path);
    CHECK(logits(*first, encode(*first, segments).handles) == expected);
    CHECK(first->memory().segment_bytes == 0);
  }
  std::vector<SegmentKey> keys;
  for (const SegmentInput& segment : segments) keys.push_back(segment.key);
  const auto open = [&](Engine& engine) {
    return wait_for<OpenResult>([&](auto done) { engine.open_segments(keys, done); });
  };
  {
    auto second = load(store.path);
    const OpenResult found = open(*second);
    CHECK(found.damaged.empty());
    CHECK(logits(*second, found.handles) == expected);
    // Encoding what the store has runs nothing.
    CHECK(encode(*second, segments).n_encoded_tokens == 0);
  }
  // Every 97th byte of a file flipped, one at a time: never used, never a crash.
  const std::string path = segment_path(store.path, keys[1]);
  const std::string sound = file_bytes(store.path, keys[1]);
  int n_noticed = 0, n_tried = 0;
  for (size_t at = 0; at < sound.size(); at += 97, ++n_tried) {
    std::string damaged = sound;
    damaged[at] = char(damaged[at] ^ 0x10);
    std::ofstream(path, std::ios::binary) << damaged;
    auto engine = load(store.path);
    const OpenResult found = open(*engine);
    if (!found.damaged.empty()) {
      CHECK(found.handles[1] == -1);
      ++n_noticed;
      continue;
    }
    TailInput input;
    input.view = {found.handles[1]};
    input.starts_from = TailStart::empty;
    input.max_tokens = 64;
    const int tail = engine->create_tail(input);
    n_noticed += code_of([&] { prefill(*engine, tail, question); }) == ErrorCode::store_invalid;
  }
  CHECK(n_tried > 50);
  // Bytes between the parts (up to 63 behind each) belong to no checksum of ours only if they are outside the runs: none is.
  CHECK(n_noticed == n_tried);
  CHECK(fs::exists(path + ".damaged"));
  for (size_t length : {size_t(0), size_t(7), size_t(127), size_t(128), size_t(1000), sound.size() - 1}) {
    std::ofstream(path, std::ios::binary) << sound.substr(0, length);
    auto engine = load(store.path);
    CHECK(open(*engine).damaged.size() == 1);
    // It is encoded again, to the same bytes.
    CHECK(encode(*engine, {segments[1]}).n_encoded_tokens == int64_t(segments[1].tokens.size()));
    CHECK((file_bytes(store.path, keys[1]) == sound));
  }
}

TEST_CASE("engine: a tail's bits do not depend on its split, nor a fork's on the other branch") {
  auto engine = load();
  const auto handles = encode(*engine, random_segments(6, 5)).handles;
  std::vector<int32_t> tokens;
  std::mt19937 random(9);
  for (int i = 0; i < 200; ++i) tokens.push_back(int32_t(random() % 256));
  for (const TailStart start : {TailStart::empty, TailStart::prefix}) {
    for (const std::optional<int> dense : {std::optional<int>{}, std::optional<int>{0}}) {
      TailInput input;
      input.view = handles;
      input.hidden.assign(handles.size(), 1);
      input.starts_from = start;
      input.dense_scope_tokens = dense;
      input.max_tokens = 400;
      const int whole = engine->create_tail(input);
      const auto expected = prefill(*engine, whole, tokens, 200).logits;
      const int split = engine->create_tail(input);
      std::vector<float> found;
      for (size_t at = 0; at < tokens.size();) {
        const size_t n = std::min(tokens.size() - at, size_t(1 + random() % 70));
        const auto part = prefill(*engine, split, {tokens.begin() + at, tokens.begin() + at + n}, int(n)).logits;
        found.insert(found.end(), part.begin(), part.end());
        at += n;
      }
      CHECK((found == expected));

      DecodeOptions options;
      options.max_tokens = 20;
      const int fork = engine->fork_tail(split);
      const auto a = decode(*engine, whole, options).ids;
      prefill(*engine, fork, {7, 7, 7});
      CHECK(decode(*engine, split, options).ids == a);
      // Decoded tokens are part of the tail: twenty more are those of forty at once.
      const int again = engine->create_tail(input);
      prefill(*engine, again, tokens);
      options.max_tokens = 40;
      const auto both = decode(*engine, again, options).ids;
      options.max_tokens = 20;
      const auto b = decode(*engine, whole, options).ids;
      CHECK((std::vector<int32_t>(both.begin() + 20, both.end()) == b));
      for (int tail : {whole, split, fork, again}) engine->release_tail(tail);
    }
  }
}

TEST_CASE("engine: a more urgent request goes first, cancelling is quick, and what is refused is said") {
  auto engine = load();
  const auto segments = random_segments(40, 13);
  std::atomic<int> n_encoded{0};
  std::promise<ErrorCode> ended;
  const auto job = engine->encode_segments(segments, Priority::ingest, [&](int) { ++n_encoded; }, [&](std::exception_ptr error, EncodeResult) {
    try {
      if (error) std::rethrow_exception(error);
      ended.set_value(ErrorCode::internal);
    } catch (const EngineError& e) {
      ended.set_value(e.code());
    }
  });
  TailInput input;
  input.starts_from = TailStart::empty;
  input.max_tokens = 40;
  const int tail = engine->create_tail(input);
  prefill(*engine, tail, {30, 31, 32});
  CHECK(n_encoded < 40);
  engine->cancel(job);
  CHECK(ended.get_future().get() == ErrorCode::cancelled);

  CHECK(code_of([&] { prefill(*engine, tail, std::vector<int32_t>(30, 1)); }) == ErrorCode::context_full);
  // Refused before anything was run: the tail goes on.
  CHECK_NOTHROW(prefill(*engine, tail, {33}));
  CHECK(code_of([&] { prefill(*engine, tail, {100000}); }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] { prefill(*engine, 999, {1}); }) == ErrorCode::invalid_argument);
  input.view = {12345};
  const int broken = engine->create_tail(input);
  CHECK(code_of([&] { prefill(*engine, broken, {1}); }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] { encode(*engine, {{numbered_key(1), {}, 0}}); }) == ErrorCode::invalid_argument);
  ReadInput read;
  read.tail = {1, 2, 3};
  read.span_end = 2;
  read.layer = 0;
  read.heads = {0, 99};
  CHECK(code_of([&] { wait_for<std::vector<float>>([&](auto done) { engine->read(read, Priority::prefill, done); }); }) ==
        ErrorCode::invalid_argument);
}

TEST_CASE("engine: a disk that cannot be written loses nothing") {
  Folder store;
  // A file where a folder must be: unwritable for root too.
  std::ofstream(store.path + "/00") << "in the way";
  auto engine = load(store.path);
  std::vector<SegmentInput> segments = random_segments(3, 21);
  for (SegmentInput& segment : segments) std::swap(segment.key[0], segment.key[31]);
  const EncodeResult result = encode(*engine, segments);
  REQUIRE(result.store_failure);
  CHECK(result.store_failure->code() == ErrorCode::store_unwritable);
  TailInput input;
  input.view = result.handles;
  input.starts_from = TailStart::empty;
  input.max_tokens = 40;
  CHECK_NOTHROW(prefill(*engine, engine->create_tail(input), {1, 2, 3}));
}
