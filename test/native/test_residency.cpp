// Last use decides what of a memory is resident, never what is in: an engine that may take less memory than its segments have answers
// as one that has all of them in view. The segments are random bytes of the tiny model's shape, which no model has run.
#include <doctest/doctest.h>
#ifdef __linux__
#include <fcntl.h>
#include <unistd.h>
#endif

#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "test/native/engine_calls.h"
#include "test/native/folder.h"

using namespace sala;

#ifdef __linux__

namespace {

constexpr int kSegments = 360, kTokens = 495;
constexpr uint64_t kMaxDisk = uint64_t(400) << 20;  // so that files are sealed at a twentieth of it

std::unique_ptr<Engine> load(const std::string& store_dir) { return load_tiny(store_dir, 2, kMaxDisk, {1, 2, 3, 4, 5}); }

Aligned<uint8_t> random_image(const SegmentLayout& layout, std::mt19937_64& random) {
  Aligned<uint8_t> image(layout.image_bytes());
  for (size_t i = 0; i + 8 <= image.size(); i += 8) {
    const uint64_t bytes = random();
    std::memcpy(image.data() + i, &bytes, 8);
  }
  const auto scale = [&](uint8_t* at, int n) {
    for (int i = 0; i < n; ++i) {
      const float value = 0.002f + 1e-6f * float(random() % 10000);
      std::memcpy(at + sizeof value * size_t(i), &value, sizeof value);
    }
  };
  for (size_t run = 0; run < size_t(layout.n_sparse_layers) * layout.n_kv_heads; ++run) {
    uint8_t* at = image.data() + layout.run_bytes * run;
    scale(at + layout.k_scales, layout.n_tokens);
    scale(at + layout.v_scales, layout.n_tokens);
    scale(at + layout.k1_scales, layout.n_windows);
  }
  return image;
}

// Bytes of the images.
uint64_t fill(Engine& engine) {
  std::mt19937_64 random(5);
  const SegmentLayout layout = segment_layout(engine.model().config, KvForm::int8, kTokens);
  for (int i = 0; i < kSegments; ++i) {
    engine.store()->add({numbered_key(i), layout, 7, std::vector<int32_t>(kTokens, i % 256)}, random_image(layout, random).data());
    if (i % 60 == 59) engine.store()->commit();
  }
  return kSegments * layout.image_bytes();
}

std::vector<int32_t> open_all(Engine& engine) {
  std::vector<SegmentKey> keys;
  for (int i = 0; i < kSegments; ++i) keys.push_back(numbered_key(i));
  return wait_for<std::vector<int32_t>>([&](auto done) { engine.open_segments(keys, done); });
}

struct Question {
  std::vector<int> segments;
  std::vector<int32_t> tokens;
};

// Each over places of its own, the first ones asked again at the end.
std::vector<Question> questions() {
  std::vector<Question> list;
  for (int i = 0; i < 70; ++i) list.push_back({{(i * 5) % kSegments, (i * 5 + 121) % kSegments, (i * 5 + 242) % kSegments}, {i % 256, 20, 30, (3 * i) % 256}});
  for (int i = 0; i < 5; ++i) list.push_back(list[i]);
  return list;
}

struct Answer {
  std::vector<float> shares, logits;
  bool operator==(const Answer&) const = default;
};

Answer answer(Engine& engine, const std::vector<int32_t>& handles, const Question& question) {
  Answer given;
  ReadInput read;
  read.tail = question.tokens;
  read.span_end = int(question.tokens.size());
  read.segments = handles;
  read.layer = 2;
  read.heads = {0};
  given.shares = wait_for<std::vector<float>>([&](auto done) { engine.read(read, Priority::prefill, done); });
  TailInput input;
  for (int segment : question.segments) input.view.push_back(handles[segment]);
  input.max_tokens = 40;
  const int tail = engine.create_tail(input);
  given.logits = prefill(engine, tail, question.tokens, 1).logits;
  engine.release_tail(tail);
  return given;
}

// What was let go of before has gone.
void settle(Engine& engine) {
  TailInput empty;
  empty.max_tokens = 40;
  const int tail = engine.create_tail(empty);
  prefill(engine, tail, {1});
  engine.release_tail(tail);
}

struct Mapped {
  uint64_t resident_bytes = 0;
  std::set<std::string> files;
};

// Of this process, of the store's segment files.
Mapped mapped_of(const std::string& folder) {
  Mapped found;
  std::ifstream smaps("/proc/self/smaps");
  bool ours = false;
  for (std::string line; std::getline(smaps, line);) {
    if (const size_t at = line.find(folder + "/seg-"); at != std::string::npos) {
      ours = true;
      found.files.insert(line.substr(at + folder.size() + 1));
    } else if (line.compare(0, 4, "Rss:") == 0) {
      if (ours) found.resident_bytes += 1024 * std::stoull(line.substr(4));
      ours = false;
    }
  }
  return found;
}

// Whether the page of this byte is in this process's memory.
bool is_resident(const uint8_t* byte) {
  const uint64_t page = reinterpret_cast<uintptr_t>(byte) / uint64_t(sysconf(_SC_PAGESIZE));
  const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  REQUIRE(pagemap >= 0);
  uint64_t entry = 0;
  const ssize_t n = pread(pagemap, &entry, sizeof entry, off_t(page * sizeof entry));
  close(pagemap);
  REQUIRE(n == ssize_t(sizeof entry));
  return entry >> 63;
}

}  // namespace

TEST_CASE("residency: last use decides what is resident, never what is in") {
  Folder store;
  const std::vector<Question> asked = questions();
  std::vector<Answer> with_room;
  uint64_t memory_bytes = 0;
  {
    auto engine = load(store.path);
    memory_bytes = fill(*engine);
    engine->store()->commit();
    REQUIRE(memory_bytes > 2 * SegmentTable::kRecentBytes);
    const std::vector<int32_t> handles = open_all(*engine);
    TailInput all;
    all.view = handles;
    all.max_tokens = 40;
    const int tail = engine->create_tail(all);
    prefill(*engine, tail, {1});
    for (const Question& question : asked) with_room.push_back(answer(*engine, handles, question));
    CHECK(mapped_of(store.path).resident_bytes > memory_bytes * 9 / 10);
    engine->release_tail(tail);
  }

  auto engine = load(store.path);
  const std::vector<int32_t> handles = open_all(*engine);
  REQUIRE(std::count(handles.begin(), handles.end(), -1) == 0);
#ifndef __SANITIZE_ADDRESS__  // it keeps what was freed for a while
  engine->limit_memory(process_memory().private_bytes + memory_bytes / 4);
#endif
  uint64_t most = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    CAPTURE(i);
    CHECK(answer(*engine, handles, asked[i]) == with_room[i]);
    most = std::max(most, mapped_of(store.path).resident_bytes);
  }
  CHECK(engine->memory().n_segments == kSegments);
  engine->limit_memory(0);
  // What is kept, and what lies around its borders.
  CHECK(most < SegmentTable::kRecentBytes + (size_t{12} << 20));
  CHECK(most > SegmentTable::kRecentBytes / 2);

  // A file that nothing used lately lies in is not even mapped, so that its room comes back when it is removed.
  const std::set<std::string> before = mapped_of(store.path).files;
  REQUIRE(before.size() > 2);
  for (int i = 0; i < 40; ++i) answer(*engine, handles, {{4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3}, {1, 2}});
  CHECK(mapped_of(store.path).files.size() < before.size());

  // Used again and again, an image stays where it is, however many others come and go; used no more, it goes although its file is mapped.
  {
    const SegmentImage first = engine->store()->map(numbered_key(0));
    const uint8_t* middle = first.bytes + engine->store()->find(numbered_key(0))->layout.image_bytes() / 2;
    for (int i = 0; i < 60; ++i) {
      CAPTURE(i);
      answer(*engine, handles, {{0, 10 + 3 * i, 11 + 3 * i, 12 + 3 * i}, {1, 2}});
      settle(*engine);
      REQUIRE(is_resident(middle));
    }
    for (int i = 0; i < 40; ++i) answer(*engine, handles, {{10 + 4 * i, 11 + 4 * i, 12 + 4 * i, 13 + 4 * i}, {1, 2}});
    settle(*engine);
    CHECK(!is_resident(middle));
  }

  // What nobody has any more leaves at once.
  engine->release_segments({handles.begin() + 1, handles.end()});
  answer(*engine, {handles[0]}, {{0}, {1}});
  CHECK(engine->memory().n_segments == 1);
  CHECK(mapped_of(store.path).resident_bytes < (size_t{1} << 20));
}

#endif
