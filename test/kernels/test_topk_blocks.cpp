#include <numeric>

#include "test/kernels/support.h"

using namespace sala;

using Indices = std::vector<int32_t>;

// Every table, for rows that all have the same expected choice by construction or by sorting.
static void check(const Floats& scores, int n_rows, int n_blocks, int k, const Indices* n_valid,
                  const Indices& expected) {
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    for (int n_threads : {1, 3}) {
      Stream stream(n_threads);
      Indices selected(size_t(n_rows) * k, -77);
      const int32_t* valid = n_valid ? n_valid->data() : nullptr;
      ops->topk_blocks({scores.data(), valid, selected.data(), n_rows, n_blocks, k}, stream);
      CHECK(selected == expected);
    }
  }
}

TEST_CASE("topk_blocks by hand: ties, zeros, infinities, too few") {
  const float inf = INFINITY;
  check({1, 3, 2, 3, 3, 0}, 1, 6, 2, nullptr, {1, 3});
  check({1, 3, 2, 3, 3, 0}, 1, 6, 4, nullptr, {1, 2, 3, 4});
  check({5, 5, 5, 5}, 1, 4, 3, nullptr, {0, 1, 2});
  check({0.0f, -0.0f, 0.0f, -1}, 1, 4, 2, nullptr, {0, 1});
  check({-0.0f, 0.0f, 1, -1}, 1, 4, 2, nullptr, {0, 2});
  check({-inf, 1, -inf, inf}, 1, 4, 3, nullptr, {0, 1, 3});
  check({-1, -2, -3, -4}, 1, 4, 2, nullptr, {0, 1});
  check({1, 2, 3}, 1, 3, 5, nullptr, {0, 1, 2, -1, -1});
  const Indices valid = {2, 0};
  check({1, 2, 9, 9, 9, 9}, 2, 3, 2, &valid, {0, 1, -1, -1});
  check({}, 0, 0, 3, nullptr, {});
}

TEST_CASE("topk_blocks against sorting, with few distinct scores and with many") {
  Random random(3);
  for (int n_blocks : {1, 63, 64, 65, 1000, 5000}) {
    for (int k : {1, 6, 64, 96}) {
      for (int n_distinct : {3, 1 << 30}) {
        CAPTURE(n_blocks);
        CAPTURE(k);
        const int n_rows = 5;
        Floats scores(size_t(n_rows) * n_blocks);
        for (float& x : scores) x = n_distinct == 3 ? static_cast<float>(random.below(3)) : random.number();
        Indices n_valid, expected;
        for (int r = 0; r < n_rows; ++r) {
          n_valid.push_back(random.below(n_blocks + 1));
          Indices order(n_valid.back());
          std::iota(order.begin(), order.end(), 0);
          const float* row = scores.data() + size_t(r) * n_blocks;
          const auto better = [&](int a, int b) { return row[a] != row[b] ? row[a] > row[b] : a < b; };
          std::sort(order.begin(), order.end(), better);
          order.resize(std::min<size_t>(order.size(), k));
          std::sort(order.begin(), order.end());
          order.resize(k, -1);
          expected.insert(expected.end(), order.begin(), order.end());
        }
        check(scores, n_rows, n_blocks, k, &n_valid, expected);
      }
    }
  }
}
