// The arena that weights are taken from.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/aligned.h"

using namespace sala;

namespace {

std::shared_ptr<uint8_t> zeroed_memory(size_t n) {
  return {static_cast<uint8_t*>(::operator new(n, std::align_val_t{64})), [](uint8_t* p) { ::operator delete(p, std::align_val_t{64}); }};
}

}  // namespace

TEST_CASE("arena: buffers lie apart on borders of 64 bytes, and keep its memory") {
  constexpr size_t n_bytes = 4096;
  std::shared_ptr<uint8_t> memory = zeroed_memory(n_bytes);
  std::memset(memory.get(), 0, n_bytes);
  const uint8_t* const begin = memory.get();
  std::weak_ptr<uint8_t> alive = memory;
  Aligned<float> floats;
  Aligned<uint8_t> bytes;
  {
    Arena arena(std::move(memory), n_bytes);
    floats = arena.take<float>(33);
    bytes = arena.take<uint8_t>(65);
  }
  CHECK(reinterpret_cast<const uint8_t*>(floats.data()) == begin);
  CHECK(bytes.data() == begin + 192);
  CHECK(std::all_of(floats.begin(), floats.end(), [](float x) { return x == 0; }));
  floats = {};
  CHECK_FALSE(alive.expired());
  bytes = {};
  CHECK(alive.expired());
}

TEST_CASE("arena: what does not fit has memory of its own") {
  constexpr size_t n_bytes = 256;
  Arena arena(zeroed_memory(n_bytes), n_bytes);
  const Aligned<uint8_t> first = arena.take<uint8_t>(200);
  const Aligned<uint8_t> second = arena.take<uint8_t>(64);
  const Aligned<uint8_t> third = arena.take<uint8_t>(1);
  for (const auto* buffer : {&second, &third}) {
    CHECK((buffer->data() < first.data() || buffer->data() >= first.data() + n_bytes));
    CHECK(reinterpret_cast<uintptr_t>(buffer->data()) % 64 == 0);
    CHECK((*buffer)[0] == 0);
  }
  Arena none(nullptr, n_bytes);
  CHECK(none.take<float>(5).size() == 5);
  CHECK(none.take<float>(0).empty());
  CHECK_THROWS_AS(none.take<float>(SIZE_MAX / 2), EngineError);
}

TEST_CASE("arena: threads get different memory") {
  constexpr size_t n_threads = 4, n_each = 200, n_bytes = n_threads * n_each * 64;
  Arena arena(zeroed_memory(n_bytes), n_bytes);
  std::vector<std::vector<Aligned<uint8_t>>> taken(n_threads);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < n_threads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < n_each; ++i) taken[t].push_back(arena.take<uint8_t>(1 + i % 64));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<const uint8_t*> starts;
  for (const auto& buffers : taken) {
    for (const auto& buffer : buffers) starts.push_back(buffer.data());
  }
  std::sort(starts.begin(), starts.end());
  CHECK(std::adjacent_find(starts.begin(), starts.end()) == starts.end());
  CHECK(starts.back() - starts.front() == std::ptrdiff_t(n_bytes - 64));
}
