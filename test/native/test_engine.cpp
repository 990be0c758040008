// The engine's promises on the tiny model with int8 activations: a segment's bytes depend on its own tokens alone, a tail's bits not
// on how it was split, what was stored is found again and damage is noticed, and cancelling loses nothing but the one request.
#include <doctest/doctest.h>
#ifdef __linux__
#include <sys/resource.h>
#endif

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <random>
#include <thread>

#include "native/store/crc32c.h"
#include "test/native/code_of.h"
#include "test/native/engine_calls.h"
#include "test/native/folder.h"

using namespace sala;
namespace fs = std::filesystem;

// Every buffer of the engine comes from here (kernels/aligned.h), so a test can say which one the system refuses.
namespace {
std::atomic<int> buffers_until_refusal{-1};
}
void* operator new(size_t n, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  if (buffers_until_refusal >= 0 && buffers_until_refusal-- == 0) return nullptr;
  void* p = nullptr;  // of exactly this size, so that AddressSanitizer sees a byte too far
  return posix_memalign(&p, size_t(alignment), n) == 0 ? p : nullptr;
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }

namespace {

const std::vector<int32_t> kPrefix{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

std::unique_ptr<Engine> load(const std::string& store_dir = "", int n_threads = 2, uint64_t max_disk_bytes = uint64_t(1) << 30) {
  return load_tiny(store_dir, n_threads, max_disk_bytes, kPrefix);
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

std::vector<SegmentKey> keys_of(const std::vector<SegmentInput>& segments) {
  std::vector<SegmentKey> keys;
  for (const SegmentInput& segment : segments) keys.push_back(segment.key);
  return keys;
}

std::vector<int32_t> open_segments(Engine& engine, const std::vector<SegmentInput>& segments) {
  return wait_for<std::vector<int32_t>>([&](auto done) { engine.open_segments(keys_of(segments), done); });
}

// What the engine's store has of a segment.
std::string image_of(Engine& engine, const SegmentKey& key) {
  const SegmentImage image = engine.store()->map(key);
  return {reinterpret_cast<const char*>(image.bytes), engine.store()->find(key)->layout.image_bytes()};
}

// The one segment file of a small store, alone under its name, and its bytes.
std::string segment_file(const std::string& folder) {
  std::string found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".kv") continue;
    REQUIRE(found.empty());
    found = entry.path().string();
  }
  REQUIRE(!found.empty());
  return found;
}
std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write_bytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }

}  // namespace

TEST_CASE("engine: a segment's bytes do not depend on its neighbours, their order, or the number of threads") {
  const auto segments = random_segments(24, 7);
  Folder folders[3];
  auto together = load(folders[0].path, 2), alone = load(folders[1].path, 1), shuffled = load(folders[2].path, 2);
  encode(*together, segments);
  for (const SegmentInput& segment : segments) encode(*alone, {segment});
  auto order = segments;
  std::shuffle(order.begin(), order.end(), std::mt19937(11));
  encode(*shuffled, order);
  for (const SegmentInput& segment : segments) {
    const std::string bytes = image_of(*together, segment.key);
    CHECK(bytes.size() > 1000);
    CHECK((bytes == image_of(*alone, segment.key)));
    CHECK((bytes == image_of(*shuffled, segment.key)));
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
  std::vector<std::string> images;
  auto in_memory = load();
  const auto expected = logits(*in_memory, encode(*in_memory, segments).handles);
  {
    auto first = load(store.path);
    CHECK(logits(*first, encode(*first, segments).handles) == expected);
    CHECK(first->memory().segment_bytes == 0);
    first->store()->commit();
    for (const SegmentInput& segment : segments) images.push_back(image_of(*first, segment.key));
  }
  {
    auto second = load(store.path);
    CHECK(logits(*second, open_segments(*second, segments)) == expected);
    // Encoding what the store has runs nothing.
    CHECK(encode(*second, segments).n_encoded_tokens == 0);
  }
  // A bit of every 97th byte flipped, one at a time: a segment that has it is not used, and all others are; never a crash.
  const std::string path = segment_file(store.path), sound = bytes_of(path);
  size_t n_noticed = 0, n_tried = 0;
  for (size_t at = 0; at < sound.size(); at += 97, ++n_tried) {
    std::string damaged = sound;
    damaged[at] = char(damaged[at] ^ 0x10);
    write_bytes(path, damaged);
    auto engine = load(store.path);
    const std::vector<int32_t> handles = open_segments(*engine, segments);
    size_t n_dropped = 0;
    for (int32_t handle : handles) {
      TailInput input;
      input.view = {handle};
      input.starts_from = TailStart::empty;
      input.max_tokens = 64;
      if (handle < 0 || code_of([&] { prefill(*engine, engine->create_tail(input), question); }) == ErrorCode::store_invalid) ++n_dropped;
    }
    REQUIRE(n_dropped == (at < kSegmentFileHeaderBytes ? 0 : 1));
    n_noticed += n_dropped > 0 || !engine->store()->take_findings().empty();
    // They are encoded again, to the same bytes.
    if (n_tried % 50 == 0) {
      encode(*engine, segments);
      for (size_t i = 0; i < segments.size(); ++i) CHECK((image_of(*engine, segments[i].key) == images[i]));
    }
  }
  CHECK(n_tried > 50);
  CHECK(n_noticed == n_tried);
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
  job->cancel();
  CHECK(ended.get_future().get() == ErrorCode::cancelled);

  CHECK(code_of([&] { prefill(*engine, tail, std::vector<int32_t>(30, 1)); }) == ErrorCode::context_full);
  // Refused before anything was run: the tail goes on.
  CHECK_NOTHROW(prefill(*engine, tail, {33}));
  CHECK(code_of([&] { prefill(*engine, tail, {34, 100000}); }) == ErrorCode::invalid_argument);
  CHECK_NOTHROW(prefill(*engine, tail, {34}));
  CHECK(code_of([&] { prefill(*engine, 999, {1}); }) == ErrorCode::invalid_argument);
  input.view = {12345};
  const int broken = engine->create_tail(input);
  CHECK(code_of([&] { prefill(*engine, broken, {1}); }) == ErrorCode::invalid_argument);
  input.view.clear();
  input.dense_scope_tokens = -1;
  const int negative = engine->create_tail(input);
  CHECK(code_of([&] { prefill(*engine, negative, {1}); }) == ErrorCode::invalid_argument);
  const int nothing = engine->create_exact_tail(0, 0);
  CHECK(code_of([&] { prefill(*engine, nothing, {1}); }) == ErrorCode::invalid_argument);
  const int huge = engine->create_exact_tail(1, 2147483647);
  CHECK(code_of([&] { prefill(*engine, huge, {1}); }) == ErrorCode::out_of_memory);
  CHECK(code_of([&] { encode(*engine, {{numbered_key(1), {}, 0}}); }) == ErrorCode::invalid_argument);
  ReadInput read;
  read.tail = {1, 2, 3};
  read.span_end = 2;
  read.layer = 0;
  read.heads = {0, 99};
  CHECK(code_of([&] { wait_for<std::vector<float>>([&](auto done) { engine->read(read, Priority::prefill, done); }); }) ==
        ErrorCode::invalid_argument);
}

#ifdef __linux__
TEST_CASE("engine: reading in the background leaves the processor to others, answers between its steps do not") {
  auto engine = load();
  const int usual = ::getpriority(PRIO_PROCESS, 0), lowered = std::max(10, usual);
  TailInput input;
  input.max_tokens = 60;
  const int tail = engine->create_tail(input);
  prefill(*engine, tail, {30, 31, 32});
  int key = 1000;
  for (const bool on : {true, false, true}) {
    engine->lower_ingest(on);
    auto segments = random_segments(12, 41);
    for (SegmentInput& segment : segments) segment.key = numbered_key(key++);
    std::atomic<int> n_kept{0}, wrong{0};
    std::promise<void> ended;
    engine->encode_segments(segments, Priority::ingest,
                            [&](int) {
                              ++n_kept;
                              wrong += ::getpriority(PRIO_PROCESS, 0) != (on ? lowered : usual);
                            },
                            [&](std::exception_ptr, EncodeResult) { ended.set_value(); });
    DecodeOptions options;
    options.max_tokens = 5;
    options.on_token = [&](int32_t) { wrong += ::getpriority(PRIO_PROCESS, 0) != usual; };
    decode(*engine, tail, options);
    CHECK(n_kept < 12);
    ended.get_future().wait();
    CHECK(n_kept == 12);
    CHECK(wrong == 0);
  }
  // What is cancelled while the other thread's turn it is ends all the same.
  for (int round = 0; round < 50; ++round) {
    auto segments = random_segments(3, 43);
    for (SegmentInput& segment : segments) segment.key = numbered_key(key++);
    std::promise<void> ended;
    const auto job = engine->encode_segments(segments, Priority::ingest, nullptr, [&](std::exception_ptr, EncodeResult) { ended.set_value(); });
    if (round % 2) engine->lower_ingest(round % 4 == 1);
    job->cancel();
    ended.get_future().wait();
  }
}
#endif

TEST_CASE("engine: a limit of memory is heeded before memory is taken, and nothing is lost by it") {
  auto engine = load();
  const ModelConfig& config = engine->model().config;
  for (const bool exact : {false, true}) {
    for (const int capacity : {1, 17, 512, 5000}) CHECK(Sequence(config, capacity, exact).bytes() == Sequence::bytes_of(config, capacity, exact));
  }
  const auto segments = random_segments(3, 47);
  TailInput input;
  input.max_tokens = 100;
  const int before = engine->create_tail(input);
  prefill(*engine, before, {1, 2});
  engine->limit_memory(1);
  CHECK(code_of([&] { encode(*engine, segments); }) == ErrorCode::out_of_memory);
  CHECK(code_of([&] { prefill(*engine, engine->create_tail(input), {1}); }) == ErrorCode::out_of_memory);
  CHECK(code_of([&] { prefill(*engine, engine->fork_tail(before), {1}); }) == ErrorCode::out_of_memory);
  CHECK(code_of([&] { prefill(*engine, engine->create_exact_tail(2, 9), {1}); }) == ErrorCode::out_of_memory);
  CHECK(code_of([&] { open_segments(*engine, {segments[0]}); }) == ErrorCode::out_of_memory);
  CHECK(engine->memory().n_segments == 0);
  CHECK_NOTHROW(prefill(*engine, before, {3}));
  // Room for the process and a small request, not for one of gigabytes.
  engine->limit_memory(process_memory().private_bytes + (size_t(64) << 20));
  CHECK_NOTHROW(prefill(*engine, engine->create_tail(input), {1}));
  CHECK(encode(*engine, segments).n_encoded_tokens > 0);
  input.max_tokens = 1 << 22;
  CHECK(code_of([&] { prefill(*engine, engine->create_tail(input), {1}); }) == ErrorCode::out_of_memory);
  engine->limit_memory(0);
  input.max_tokens = 100;
  CHECK_NOTHROW(prefill(*engine, engine->create_tail(input), {1}));
}

TEST_CASE("engine: a store that cannot be used, or has no room, loses nothing") {
  const std::vector<SegmentInput> segments = random_segments(3, 21);
  const auto answers = [&](Engine& engine, const std::vector<int32_t>& handles) {
    TailInput input;
    input.view = handles;
    input.starts_from = TailStart::empty;
    input.max_tokens = 40;
    return prefill(engine, engine.create_tail(input), {1, 2, 3}, 1).logits;
  };
  auto in_memory = load();
  const auto expected = answers(*in_memory, encode(*in_memory, segments).handles);
  SUBCASE("a file in the folder's place: unwritable for root too") {
    Folder folder;
    write_bytes(folder.path + "/store", "in the way");
    auto engine = load(folder.path + "/store");
    CHECK(!engine->store());
    REQUIRE(engine->store_failure());
    CHECK(engine->store_failure()->code() == ErrorCode::store_unwritable);
    const EncodeResult result = encode(*engine, segments);
    CHECK(!result.store_failure);
    CHECK(answers(*engine, result.handles) == expected);
  }
  SUBCASE("a newer one: it is left as it is") {
    Folder folder;
    std::string path, newer;
    load(folder.path)->store()->commit();
    for (const auto& entry : fs::directory_iterator(folder.path)) {
      if (entry.path().filename().string().rfind("MANIFEST", 0) == 0) path = entry.path().string();
    }
    newer = bytes_of(path);
    newer[8] = 99;
    const uint32_t sum = crc32c(newer.data(), 12);
    std::memcpy(newer.data() + 12, &sum, sizeof sum);
    write_bytes(path, newer);
    auto engine = load(folder.path);
    REQUIRE(engine->store_failure());
    CHECK(engine->store_failure()->code() == ErrorCode::store_newer);
    CHECK(answers(*engine, encode(*engine, segments).handles) == expected);
    engine.reset();
    CHECK((bytes_of(path) == newer));
  }
  SUBCASE("another process has it") {
    Folder folder;
    auto first = load(folder.path), second = load(folder.path);
    CHECK(first->store());
    REQUIRE(second->store_failure());
    CHECK(second->store_failure()->code() == ErrorCode::store_unwritable);
    CHECK(answers(*second, encode(*second, segments).handles) == expected);
  }
  SUBCASE("it is full: what it refused is kept once there is room") {
    Folder folder;
    auto engine = load(folder.path, 2, 300 << 10);
    const auto others = random_segments(60, 22);
    std::vector<SegmentInput> renamed = others;
    for (size_t i = 0; i < renamed.size(); ++i) renamed[i].key = numbered_key(1000 + int(i));
    const EncodeResult filled = encode(*engine, renamed);
    REQUIRE(filled.store_failure);
    CHECK(filled.store_failure->code() == ErrorCode::store_full);
    const EncodeResult result = encode(*engine, segments);
    CHECK(answers(*engine, result.handles) == expected);
    const size_t refused = engine->memory().segment_bytes;
    CHECK(refused > 0);
    const auto keep = [&] { return wait_for<KeepResult>([&](auto done) { engine->keep_segments(done); }); };
    CHECK(keep().failure);
    CHECK(keep().needed_bytes > 0);
    // All of it is in use: no room can be made.
    CHECK(!engine->store()->make_room(keep().needed_bytes));
    engine->release_segments(filled.handles);
    CHECK(engine->store()->make_room(keep().needed_bytes));
    CHECK(!keep().failure);
    CHECK(engine->memory().segment_bytes == 0);
    CHECK(answers(*engine, result.handles) == expected);
    for (const SegmentInput& segment : segments) CHECK(engine->store()->find(segment.key));
    engine->store()->commit();
    engine.reset();
    auto again = load(folder.path);
    CHECK(answers(*again, open_segments(*again, segments)) == expected);
  }
}

TEST_CASE("engine: a tail may be released while a request runs on it") {
  auto engine = load();
  TailInput input;
  input.starts_from = TailStart::empty;
  input.max_tokens = 4000;
  // Released before the request begins it is one that does not exist; tried again until it is released in the middle.
  ErrorCode code = ErrorCode::invalid_argument;
  for (int tries = 0; tries < 100 && code != ErrorCode::cancelled; ++tries) {
    const int tail = engine->create_tail(input);
    std::promise<ErrorCode> ended;
    engine->prefill(tail, std::vector<int32_t>(3000, 5), Priority::prefill, 0, false, [&](std::exception_ptr error, PrefillResult) {
      ended.set_value(code_of([&] {
        if (error) std::rethrow_exception(error);
      }));
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(tries));
    engine->release_tail(tail);
    code = ended.get_future().get();
  }
  CHECK(code == ErrorCode::cancelled);
  const int other = engine->create_tail(input);
  CHECK_NOTHROW(prefill(*engine, other, {1, 2, 3}));
  CHECK(engine->memory().n_tails == 1);
}

TEST_CASE("engine: whatever buffer the system refuses, references balance and no half-run tail goes on") {
  auto engine = load();
  const auto segments = random_segments(6, 17);
  const std::vector<int32_t> question{20, 21, 22, 23, 24};
  DecodeOptions options;
  options.max_tokens = 6;
  // Runs `request` with the first, the second, … buffer refused, until it needs no more of them.
  const auto refuse_each = [](const std::function<void()>& request, const std::function<void()>& after_failure) {
    int n_refused = 0;
    for (;; ++n_refused) {
      buffers_until_refusal = n_refused;
      const ErrorCode code = code_of(request);
      const bool was_refused = buffers_until_refusal.exchange(-1) == -1;
      if (!was_refused) return n_refused;
      REQUIRE(code == ErrorCode::out_of_memory);
      after_failure();
    }
  };
  EncodeResult encoded;
  CHECK(refuse_each([&] { encoded = encode(*engine, segments); }, [&] { REQUIRE(engine->memory().n_segments == 0); }) > 20);
  CHECK(engine->memory().n_segments == 6);

  TailInput input;
  input.view = encoded.handles;
  input.starts_from = TailStart::empty;
  input.dense_scope_tokens = 0;
  input.max_tokens = 64;
  const int whole = engine->create_tail(input);
  const auto expected_logits = prefill(*engine, whole, question, 5).logits;
  const auto expected_ids = decode(*engine, whole, options).ids;
  engine->release_tail(whole);

  int tail = -1;
  PrefillResult prefilled;
  const auto make_and_prefill = [&] {
    tail = engine->create_tail(input);
    prefilled = prefill(*engine, tail, question, 5);
  };
  CHECK(refuse_each(make_and_prefill, [&] {
          REQUIRE(code_of([&] { prefill(*engine, tail, question); }) == ErrorCode::out_of_memory);
          engine->release_tail(tail);
        }) > 10);
  CHECK(prefilled.logits == expected_logits);

  // A decoding that fails leaves its tail whole or marked, never something in between.
  std::vector<int32_t> ids;
  options.on_token = [&](int32_t id) { ids.push_back(id); };
  int working = engine->fork_tail(tail), n_whole = 0, n_marked = 0;
  const int n_refused = refuse_each([&] { decode(*engine, working, options); }, [&] {
    DecodeOptions rest = options;
    rest.max_tokens = int(expected_ids.size() - ids.size());
    const ErrorCode code = code_of([&] { decode(*engine, working, rest); });
    REQUIRE((code == ErrorCode::out_of_memory || ids == expected_ids));
    ++(code == ErrorCode::out_of_memory ? n_marked : n_whole);
    ids.clear();
    engine->release_tail(working);
    working = engine->fork_tail(tail);
  });
  CHECK(n_refused > 10);
  CHECK(n_marked > 2);
  CHECK(n_whole > 1);
  CHECK(ids == expected_ids);

  ReadInput read;
  read.tail = question;
  read.span_end = 3;
  read.segments = encoded.handles;
  read.layer = 1;
  read.heads = {0};
  while (engine->model().config.mixer_types[read.layer] != MixerType::sparse) ++read.layer;
  std::vector<float> shares;
  CHECK(refuse_each([&] { shares = wait_for<std::vector<float>>([&](auto done) { engine->read(read, Priority::prefill, done); }); },
                    [] {}) > 5);
  CHECK(shares.size() == 6);
}

TEST_CASE("engine: handles balance when opening fails, and when they are given back too often") {
  Folder store;
  const auto segments = random_segments(3, 23);
  auto engine = load(store.path);
  const auto handles = encode(*engine, segments).handles;
  CHECK(engine->memory().n_segments == 3);
  // What is in memory is not removed; what was released before is.
  const auto remove = [&] { return wait_for<Store::Removed>([&](auto done) { engine->remove_segments(keys_of(segments), done); }); };
  engine->release_segments({handles[0], handles[0], -1, 4711});
  CHECK(remove().n_segments == 1);
  engine->release_segments({handles[1], handles[2]});
  TailInput input;
  input.max_tokens = 40;
  prefill(*engine, engine->create_tail(input), {1});  // commands before it have run
  CHECK(engine->memory().n_segments == 0);
  const auto found = open_segments(*engine, segments);
  CHECK(found[0] == -1);
  CHECK(found[1] >= 0);
  CHECK(found[2] >= 0);
  engine->release_segments({found[1], found[2]});
  CHECK(remove().n_segments == 2);
  CHECK(engine->store()->keys().empty());
}

TEST_CASE("engine: a stored segment of another shape is not used") {
  Folder store;
  const auto segments = random_segments(1, 25);
  auto engine = load(store.path);
  SegmentHeader header;
  header.key = segments[0].key;
  header.tokens = {1, 2, 3};
  header.layout = segment_layout(engine->model().config, KvForm::int8, 3);
  header.layout.head_dim *= 2;
  place_parts(header.layout);
  const Aligned<uint8_t> image(header.layout.image_bytes());
  engine->store()->add(header, image.data());
  engine->store()->release(header.key);
  CHECK(open_segments(*engine, segments)[0] == -1);
  CHECK(encode(*engine, segments).n_encoded_tokens == int64_t(segments[0].tokens.size()));
  CHECK(engine->store()->find(header.key)->layout.n_tokens == int(segments[0].tokens.size()));
}

TEST_CASE("engine: a view's images are fetched some at a time, of segments that stay until then") {
  auto engine = load();
  const ModelConfig& config = engine->model().config;
  const auto segment_of = [&](int n_tokens) { return ViewSegment{segment_layout(config, KvForm::int8, n_tokens), 0}; };
  std::vector<ViewSegment> segments(1000, segment_of(495));
  segments[3] = segment_of(1 << 20);  // larger than what is fetched at a time
  std::vector<size_t> fetched;
  View view(config, segments, std::nullopt, [&](size_t i) {
    fetched.push_back(i);
    return SegmentImage{};
  });
  for (bool done = false; !done;) {
    const size_t before = fetched.size();
    done = view.fetch_some();
    size_t n_bytes = 0;
    for (size_t i = before; i < fetched.size(); ++i) n_bytes += segments[fetched[i]].layout.image_bytes();
    REQUIRE(fetched.size() > before);
    // Less than a step's worth but for the last one of it.
    CHECK(n_bytes - segments[fetched.back()].layout.image_bytes() < View::kFetchBytes);
  }
  CHECK(fetched.size() == segments.size());
  CHECK(std::is_sorted(fetched.begin(), fetched.end()));
  CHECK(view.fetch_some());
  CHECK(fetched.size() == segments.size());

  // Nothing is mapped before a tail is prefilled, and until then its segments stay.
  Folder store;
  auto stored = load(store.path);
  const auto inputs = random_segments(2, 37);
  TailInput input;
  input.view = encode(*stored, inputs).handles;
  input.max_tokens = 40;
  const int tail = stored->create_tail(input), unused = stored->create_tail(input);
  stored->release_segments(input.view);
  prefill(*stored, tail, {1});
  CHECK(stored->memory().n_segments == 2);
  stored->release_tail(unused);
  TailInput empty;
  empty.max_tokens = 40;
  prefill(*stored, stored->create_tail(empty), {1});  // commands before it have run
  CHECK(stored->memory().n_segments == 0);
}

TEST_CASE("engine: a segment that was damaged and encoded again is one segment, whoever lets go of the old one") {
  Folder store;
  const auto segments = random_segments(1, 29);
  auto engine = load(store.path);
  const int old = encode(*engine, segments).handles[0];
  std::string damaged = bytes_of(segment_file(store.path));
  damaged[damaged.size() - 100] ^= 1;
  write_bytes(segment_file(store.path), damaged);
  TailInput input;
  input.view = {old};
  input.max_tokens = 40;
  CHECK(code_of([&] { prefill(*engine, engine->create_tail(input), {1}); }) == ErrorCode::store_invalid);
  const EncodeResult again = encode(*engine, segments);
  CHECK(again.n_encoded_tokens > 0);
  CHECK(again.handles[0] != old);
  engine->release_segments({old});
  CHECK(encode(*engine, segments).handles == again.handles);
  CHECK(engine->memory().n_segments == 1);
}

TEST_CASE("engine: a prefix is not changed under segments or requests") {
  const std::vector<int32_t> other{9, 8, 7};
  Folder store;
  auto segments = random_segments(1, 31);
  segments[0].tokens.resize(490, 3);
  {
    auto engine = load(store.path);
    std::promise<ErrorCode> encoded;
    engine->encode_segments(segments, Priority::ingest, nullptr, [&](std::exception_ptr error, EncodeResult) {
      encoded.set_value(error ? code_of([&] { std::rethrow_exception(error); }) : ErrorCode::internal);
    });
    // Goes first, or between two layers, unless the engine has been very quick.
    const bool refused = code_of([&] { set_prefix(*engine, other); }) == ErrorCode::invalid_argument;
    const bool cancelled = encoded.get_future().get() == ErrorCode::cancelled;
    CHECK(refused != cancelled);
    CHECK(bool(engine->store()->find(segments[0].key)) == refused);
    if (cancelled) CHECK(encode(*engine, segments).n_encoded_tokens == 490);
    CHECK(code_of([&] { set_prefix(*engine, kPrefix); }) == (refused ? ErrorCode::internal : ErrorCode::invalid_argument));
  }
}
