// Selection of stored blocks. What is expected comes from scoring every block, here, in double: no table is held against itself.
#include <numeric>

#include "test/kernels/support.h"

using namespace sala;

namespace {

using Indices = std::vector<int32_t>;

// Segments with so many blocks each, and their compressed keys in both layouts of selection.
struct Memory {
  int n_kv_heads, head_dim, n_blocks = 0, n_windows = 0;
  std::vector<int8_t> codes;  // [n_kv_heads, n_windows, head_dim]
  Floats window_scales;       // [n_kv_heads, n_windows]
  Indices block_of, slot_of;  // [n_windows]
  std::vector<uint8_t> continued;
  Indices begin, end;         // windows that overlap a block

  // n_tokens: of each segment.
  Memory(const std::vector<int>& n_tokens, int n_kv_heads, int head_dim, Random& random) : n_kv_heads(n_kv_heads), head_dim(head_dim) {
    for (int n : n_tokens) {
      const int n_own = (std::max(1, n - 15) + 15) / 16, blocks = (n + 63) / 64;
      for (int j = 0; j < n_own; ++j) {
        block_of.push_back(n_blocks + j / 4);
        slot_of.push_back(j % 4);
      }
      for (int b = 0; b < blocks; ++b) {
        continued.push_back(b > 0);
        begin.push_back(n_windows + std::max(0, 4 * b - 1));
        end.push_back(n_windows + std::min(n_own, 4 * b + 4));
      }
      n_windows += n_own;
      n_blocks += blocks;
    }
    for (int i = 0; i < n_kv_heads * n_windows; ++i) {
      window_scales.push_back(0.01f + 0.02f * std::fabs(random.number()));
      for (int c = 0; c < head_dim; ++c) codes.push_back(static_cast<int8_t>(random.below(255) - 127));
    }
  }

  int8_t* key(int g, int j) { return codes.data() + (size_t(g) * n_windows + j) * head_dim; }
  // Window `to` of all heads becomes a copy of `from`.
  void copy(int from, int to) {
    for (int g = 0; g < n_kv_heads; ++g) {
      std::copy_n(key(g, from), head_dim, key(g, to));
      window_scales[g * n_windows + to] = window_scales[g * n_windows + from];
    }
  }
};

struct Queries {
  int n_tokens, n_heads;
  Floats q, q_scale;

  Queries(int n_tokens, int n_heads, int head_dim, Random& random, float size = 1)
      : n_tokens(n_tokens), n_heads(n_heads), q(random.numbers(size_t(n_tokens) * n_heads * head_dim, size)), q_scale(n_tokens) {
    for (float& x : q_scale) x = (1.5f + 0.5f * random.number()) / std::sqrt(float(head_dim));
  }
};

// [n_tokens, n_kv_heads, k].
Indices run(const Ops& ops, Stream& stream, const Memory& memory, const Queries& queries, int k, int first = 0, int n = -1) {
  if (n < 0) n = queries.n_tokens - first;
  const int d = memory.head_dim;
  const int64_t n_slots = n_block_slots(memory.n_blocks);
  std::vector<int8_t> keys(memory.n_kv_heads * n_slots * d, 77);
  Floats scales = poisoned(memory.n_kv_heads * n_slots);
  for (int g = 0; g < memory.n_kv_heads; ++g) {
    for (int j = 0; j < memory.n_windows; ++j) {
      const int b = memory.block_of[j], i = memory.slot_of[j];
      scales[g * n_slots + block_scale_index(b, i)] = memory.window_scales[g * memory.n_windows + j];
      for (int c = 0; c < d; ++c) {
        keys[g * n_slots * d + block_key_index(b, i, c, d)] = memory.codes[(size_t(g) * memory.n_windows + j) * d + c];
      }
    }
  }
  Floats scratch = poisoned(select_blocks_memory(n, queries.n_heads, memory.n_blocks));
  Indices selected(size_t(n) * memory.n_kv_heads * k, -77);
  ops.select_blocks({queries.q.data() + size_t(first) * queries.n_heads * d, queries.q_scale.data() + first, keys.data(), scales.data(),
                     memory.continued.data(), memory.n_blocks, selected.data(), k, scratch.data(), n, queries.n_heads,
                     memory.n_kv_heads, d},
                    stream);
  return selected;
}

// Scores of all blocks for token t and group g, with queries rounded to 16 bit or as they are. error: by how much a logit of the
// former may differ from one of the latter.
std::vector<double> scores_of(const Memory& memory, const Queries& queries, int t, int g, bool rounded, double* error = nullptr) {
  const int d = memory.head_dim, n_per_group = queries.n_heads / memory.n_kv_heads;
  std::vector<double> a(memory.n_windows, 0.0), z(memory.n_windows), scores;
  for (int h = g * n_per_group; h < (g + 1) * n_per_group; ++h) {
    const float* q = queries.q.data() + (size_t(t) * queries.n_heads + h) * d;
    float largest = 0;
    for (int c = 0; c < d; ++c) largest = std::max(largest, std::fabs(q[c]));
    const float s = largest < 1e-30f ? 1 : largest / 32512;
    for (int j = 0; j < memory.n_windows; ++j) {
      double dot = 0, size = 0;
      for (int c = 0; c < d; ++c) {
        const double code = memory.codes[(size_t(g) * memory.n_windows + j) * d + c];
        dot += (rounded ? double{s} * std::nearbyint(q[c] / s) : double{q[c]}) * code;
        size += std::fabs(code);
      }
      const double scale = double{queries.q_scale[t]} * memory.window_scales[g * memory.n_windows + j];
      z[j] = scale * dot;
      // A component is off by half a step s at most (and by the rounding of q / s).
      if (error) *error = std::max(*error, scale * size * s * 0.51);
    }
    const double max = z.empty() ? 0 : *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (double x : z) sum += std::exp(x - max);
    for (int j = 0; j < memory.n_windows; ++j) a[j] += std::exp(z[j] - max) / sum;
  }
  for (int b = 0; b < memory.n_blocks; ++b) {
    scores.push_back(*std::max_element(a.begin() + memory.begin[b], a.begin() + memory.end[b]));
  }
  return scores;
}

// `selected` [k] are blocks that a choice of the k best may take if scores may be off by the factor 1 + tolerance.
void check_choice(const Indices& selected, const std::vector<double>& scores, double tolerance) {
  const int n = static_cast<int>(scores.size()), n_selected = std::min<int>(selected.size(), n);
  std::vector<double> sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const double least = n_selected > 0 ? sorted[n_selected - 1] : 0;
  std::vector<bool> taken(n, false);
  int n_wrong = 0, last = -1;
  for (size_t i = 0; i < selected.size(); ++i) {
    const int32_t b = selected[i];
    if (static_cast<int>(i) >= n_selected) {
      n_wrong += b != -1;
      continue;
    }
    REQUIRE(b > last);
    REQUIRE(b < n);
    last = b;
    taken[b] = true;
    n_wrong += scores[b] * (1 + tolerance) < least;
  }
  for (int b = 0; b < n; ++b) n_wrong += n_selected > 0 && !taken[b] && scores[b] > least * (1 + tolerance);
  CHECK(n_wrong == 0);
}

Indices part(const Indices& all, size_t row, int k) { return {all.begin() + row * k, all.begin() + (row + 1) * k}; }

// Every table against the scores in double; the tables of the family against each other, with any number of threads, and with tokens
// one by one. Returns their choice.
Indices check(const Memory& memory, const Queries& queries, int k, double tolerance = 2e-5) {
  CAPTURE(memory.n_blocks);
  CAPTURE(queries.n_heads);
  CAPTURE(k);
  Indices first;
  Stream alone(1);
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(std::string(ops->name));
    const bool is_reference = ops == backends().front();
    for (int n_threads : {1, 2, 5}) {
      if (is_reference && n_threads > 1) continue;
      Stream stream(n_threads);
      const Indices selected = run(*ops, stream, memory, queries, k);
      if (n_threads == 1) {
        for (int t = 0; t < queries.n_tokens; ++t) {
          for (int g = 0; g < memory.n_kv_heads; ++g) {
            check_choice(part(selected, size_t(t) * memory.n_kv_heads + g, k), scores_of(memory, queries, t, g, true), tolerance);
          }
        }
      }
      if (is_reference) continue;
      if (first.empty()) first = selected;
      CHECK(selected == first);
    }
  }
  Indices one_by_one;
  for (int t = 0; t < queries.n_tokens; ++t) {
    const Indices selected = run(*backends().back(), alone, memory, queries, k, t, 1);
    one_by_one.insert(one_by_one.end(), selected.begin(), selected.end());
  }
  CHECK(one_by_one == first);
  return first;
}

std::vector<int> random_lengths(int n, Random& random) {
  std::vector<int> lengths;
  for (int i = 0; i < n; ++i) lengths.push_back(1 + random.below(495));
  return lengths;
}

// The ranking of blocks that choices of 1, 2, … say: each must have all of the one before. With as many as all but one no block is
// left out of the second pass, so a block that is left out wrongly in a smaller choice shows here, to the last bit.
// Of one token and group.
void check_nested(const Memory& memory, const Queries& queries) {
  Stream stream(1);
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(std::string(ops->name));
    Indices smaller;
    int n_wrong = 0;
    for (int k = 1; k < memory.n_blocks; ++k) {
      const Indices selected = run(*ops, stream, memory, queries, k);
      n_wrong += !std::includes(selected.begin(), selected.end(), smaller.begin(), smaller.end());
      smaller = selected;
    }
    CHECK(n_wrong == 0);
  }
}

}  // namespace

TEST_CASE("select_blocks: random memories") {
  Random random(1);
  check(Memory(random_lengths(60, random), 2, 64, random), Queries(11, 14, 64, random), 64);
  check(Memory(random_lengths(40, random), 2, 16, random), Queries(3, 4, 16, random), 6);
  check(Memory(random_lengths(30, random), 1, 128, random), Queries(2, 32, 128, random), 20);
  check(Memory(random_lengths(30, random), 3, 24, random), Queries(9, 15, 24, random), 1);
  check(Memory(std::vector<int>(100, 1), 2, 8, random), Queries(2, 2, 8, random), 33);
  check(Memory(std::vector<int>(30, 65), 1, 8, random), Queries(2, 3, 8, random), 17);  // second blocks have no window of their own
}

TEST_CASE("select_blocks: several sections") {
  Random random(2);
  const Memory memory(std::vector<int>(2 * kSelectSectionBlocks / 8 + 3, 495), 1, 16, random);
  REQUIRE(memory.n_blocks > 2 * kSelectSectionBlocks);
  check(memory, Queries(2, 2, 16, random, 3), 64);
}

TEST_CASE("select_blocks: fewer blocks than are wanted, none, or none wanted") {
  Random random(3);
  CHECK(check(Memory({64}, 1, 8, random), Queries(2, 1, 8, random), 3) == Indices{0, -1, -1, 0, -1, -1});
  CHECK(check(Memory({100}, 1, 8, random), Queries(1, 1, 8, random), 2) == Indices{0, 1});
  CHECK(check(Memory({}, 1, 8, random), Queries(1, 1, 8, random), 2) == Indices{-1, -1});
  CHECK(check(Memory({300}, 2, 8, random), Queries(1, 2, 8, random), 0).empty());
}

TEST_CASE("select_blocks: equal scores go to the lower block") {
  Random random(4);
  Memory memory(std::vector<int>(40, 300), 2, 32, random);
  // All segments are copies of the first.
  const int n = memory.n_windows / 40;
  for (int j = n; j < memory.n_windows; ++j) memory.copy(j % n, j);
  const Queries queries(3, 6, 32, random);
  for (int k : {1, 5, 39, 40, 41, 100}) {
    const Indices selected = check(memory, queries, k);
    for (size_t row = 0; row < 6; ++row) {
      const std::vector<double> scores = scores_of(memory, queries, int(row / 2), int(row % 2), true);
      Indices order(memory.n_blocks);
      std::iota(order.begin(), order.end(), 0);
      // Copies have equal scores in double, too; others are well apart.
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
      order.resize(k);
      std::sort(order.begin(), order.end());
      CHECK(part(selected, row, k) == order);
    }
  }
  // Nothing to choose by: all windows count the same.
  Queries zero = queries;
  for (float& x : zero.q) x = 0;
  const Indices selected = check(memory, zero, 7);
  for (size_t row = 0; row < 6; ++row) CHECK(part(selected, row, 7) == Indices{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("select_blocks: near ties are decided by the scores, never by what leaves blocks out") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Memory memory(random_lengths(12, random), 1, 16, random);
    // Keys a step apart, or equal, so that scores differ by a little or not at all, and heads that agree and that do not.
    for (int j = 1; j < memory.n_windows; ++j) {
      if (random.below(4) == 0) continue;
      memory.copy(random.below(j), j);
      if (random.below(2)) memory.key(0, j)[random.below(16)] ^= 1;
    }
    Queries queries(1, seed % 2 ? 7 : 3, 16, random, seed % 3 == 0 ? 40.0f : 2.0f);
    if (seed % 2) {
      for (int h = 1; h < 7; ++h) std::copy_n(queries.q.begin(), 16, queries.q.begin() + 16 * h);
    }
    check_nested(memory, queries);
    for (int k : {1, 8, 30}) check(memory, queries, k, 1e-3);  // z in the hundreds: rounded to some 1e-4
  }
}

TEST_CASE("select_blocks: logits so far apart that most weights are 0") {
  Random random(5);
  const Memory memory(random_lengths(20, random), 1, 16, random);
  const Queries queries(1, 1, 16, random, 3000);
  check_nested(memory, queries);
  Stream stream(1);
  for (const Ops* ops : tables_under_test()) {
    // One block has all weight, so the others are equal: the lowest ones are taken.
    const Indices selected = run(*ops, stream, memory, queries, 4, 0, 1);
    CHECK(selected[0] == 0);
    CHECK(selected[1] == 1);
  }
}

TEST_CASE("select_blocks: against queries that are not rounded, only near ties differ") {
  Random random(6);
  const Memory memory(random_lengths(150, random), 2, 64, random);
  const Queries queries(6, 14, 64, random, 2);
  Stream stream(2);
  const Indices selected = run(*backends().back(), stream, memory, queries, 64);
  for (int t = 0; t < 6; ++t) {
    for (int g = 0; g < 2; ++g) {
      // With logits off by ε a weight is off by e^ε, a sum of them, too: a score by e^2ε, and so is the least of the best.
      double error = 0;
      scores_of(memory, queries, t, g, true, &error);
      CHECK(error < 0.01);
      check_choice(part(selected, size_t(t) * 2 + g, 64), scores_of(memory, queries, t, g, false), std::expm1(4 * error));
    }
  }
}

TEST_CASE("select_blocks: what is no number does no harm") {
  Random random(7);
  const Memory memory(random_lengths(20, random), 1, 16, random);
  Queries queries(1, 2, 16, random);
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    queries.q[3] = bad;
    for (const Ops* ops : backends()) {
      if (ops == backends().front()) continue;
      Stream stream(1);
      for (int32_t b : run(*ops, stream, memory, queries, 5)) CHECK((b >= 0 && b < memory.n_blocks));
    }
  }
}
