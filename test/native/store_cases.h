// What the tests of the store share: segments that tell by their bytes which they are, a model of what a store should hold, and the
// comparison of the two.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>

#include "native/store/store.h"
#include "test/native/fault_file_system.h"

namespace sala {

inline const std::string kFolder = "store";
inline const std::string kIdentity = "a model";

struct MadeSegment {
  SegmentHeader header;
  Aligned<uint8_t> image;
};

inline SegmentKey key_of(int id) {
  SegmentKey key{};
  for (size_t i = 0; i < key.size(); ++i) key[i] = uint8_t((id >> 8 * (i % 4)) * (i < 4 ? 1 : 7) + (i < 4 ? 0 : int(i)));
  return key;
}

inline SegmentLayout small_layout(int n_tokens) {
  SegmentLayout layout;
  layout.n_tokens = n_tokens;
  layout.n_windows = 1;
  layout.n_sparse_layers = 2;
  layout.n_kv_heads = 1;
  layout.head_dim = 8;
  place_parts(layout);
  return layout;
}

// Its bytes depend on `id` alone.
inline const MadeSegment& segment_of(int id) {
  static std::map<int, MadeSegment> made;
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  const auto known = made.find(id);
  if (known != made.end()) return known->second;
  std::mt19937 random{uint32_t(id)};
  MadeSegment segment;
  segment.header.key = key_of(id);
  segment.header.layout = small_layout(1 + int(random() % 12));
  segment.header.n_header_tokens = int(random() % uint32_t(segment.header.layout.n_tokens + 1));
  for (int t = 0; t < segment.header.layout.n_tokens; ++t) segment.header.tokens.push_back(int32_t(random() % 1000));
  segment.image = Aligned<uint8_t>(segment.header.layout.image_bytes());
  for (uint8_t& byte : segment.image) byte = uint8_t(random());
  return made.emplace(id, std::move(segment)).first->second;
}

inline StoreOptions small_options() {
  StoreOptions options;
  options.reading = ReadingKeys{1, {0}};
  options.max_bytes = uint64_t(1) << 30;
  options.segment_file_bytes = 16 << 10;
  options.checkpoint_bytes = 2 << 10;
  return options;
}

// What a store should hold.
struct StoreModel {
  std::set<int> segments;
  std::array<std::map<std::string, std::string>, kStoreTables> tables;
  bool operator==(const StoreModel&) const = default;
};

// What it does hold. Reads every segment; one whose bytes are not its own fails the test.
inline StoreModel contents_of(Store& store, int n_ids) {
  StoreModel found;
  for (int id = 0; id < n_ids; ++id) {
    const MadeSegment& made = segment_of(id);
    const auto info = store.find(made.header.key);
    if (!info) continue;
    found.segments.insert(id);
    REQUIRE(info->layout.n_tokens == made.header.layout.n_tokens);
    REQUIRE(info->n_header_tokens == made.header.n_header_tokens);
    const SegmentImage image = store.map(made.header.key);
    REQUIRE(std::memcmp(image.bytes, made.image.data(), made.image.size()) == 0);
    const Aligned<uint8_t> keys = store.read_keys(made.header.key);
    REQUIRE(keys.size() == made.header.layout.v);
    REQUIRE(std::memcmp(keys.data(), made.image.data() + made.header.layout.run_bytes, keys.size()) == 0);
    REQUIRE(store.tokens(made.header.key) == made.header.tokens);
  }
  REQUIRE(store.keys().size() == found.segments.size());
  for (size_t table = 0; table < kStoreTables; ++table) {
    for (auto& [key, value] : store.records(StoreTable(table), "")) found.tables[table][key] = value;
  }
  return found;
}

// What one has and the other has not, for messages.
inline std::string difference(const StoreModel& a, const StoreModel& b) {
  std::string text;
  for (int id : a.segments) text += b.segments.count(id) ? "" : " +" + std::to_string(id);
  for (int id : b.segments) text += a.segments.count(id) ? "" : " -" + std::to_string(id);
  for (size_t table = 0; table < kStoreTables; ++table) {
    if (a.tables[table] != b.tables[table]) text += " table " + std::to_string(table);
  }
  return text.empty() ? "none" : text;
}

// Looks at everything; what is found damaged is printed with the failure.
inline void require_sound(Store& store) {
  const Verification found = store.verify();
  const std::string finding = found.findings.empty() ? "" : found.findings[0];
  CAPTURE(finding);
  REQUIRE(found.findings.empty());
}

inline void add_segment(Store& store, int id) {
  const MadeSegment& made = segment_of(id);
  store.add(made.header, made.image.data());
  store.release(made.header.key);
}

inline uint32_t environment_number(const char* name, uint32_t otherwise) {
  const char* text = std::getenv(name);
  return text ? uint32_t(std::strtoul(text, nullptr, 10)) : otherwise;
}

// SALA_SEED, else a new one; printed, so that a failure can be had again.
inline uint32_t seed_of(const char* test) {
  const uint32_t seed = environment_number("SALA_SEED", std::random_device()());
  std::printf("%s: SALA_SEED=%u\n", test, seed);
  std::fflush(stdout);
  return seed;
}

}  // namespace sala
