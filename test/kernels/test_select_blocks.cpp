// Selection of stored blocks. What is expected comes from the definition, followed here in double: no table is held against itself.
#include <cstring>
#include <numeric>

#include "test/kernels/support.h"

using namespace sala;

namespace {

using Indices = std::vector<int32_t>;

enum class Coarse { rounded, random };

// Segments with so many tokens each: their compressed keys and the coarse ones, some components of the former or anything.
struct Memory {
  int n_kv_heads, head_dim, n_blocks = 0, n_windows = 0;
  std::vector<int8_t> codes;  // [n_kv_heads, n_windows, head_dim]
  Floats window_scales;       // [n_kv_heads, n_windows]
  std::vector<uint8_t> continued;  // [n_blocks]
  Indices begin, end;              // a block's own windows
  int coarse_dim;
  Floats basis, mean;           // [n_kv_heads, head_dim, coarse_dim] and [n_kv_heads, head_dim]
  std::vector<uint8_t> coarse;  // [n_kv_heads, n_windows, coarse_dim]
  Floats coarse_scales;         // [n_kv_heads, n_windows]

  Memory(const std::vector<int>& n_tokens, int n_kv_heads, int head_dim, Random& random, Coarse kind = Coarse::rounded)
      : n_kv_heads(n_kv_heads), head_dim(head_dim), coarse_dim(std::max(8, head_dim / 16 * 8)) {
    for (int n : n_tokens) {
      const int n_own = (std::max(1, n - 15) + 15) / 16, blocks = (n + 63) / 64;
      for (int b = 0; b < blocks; ++b) {
        continued.push_back(b > 0);
        begin.push_back(n_windows + std::min(n_own, 4 * b));
        end.push_back(n_windows + std::min(n_own, 4 * b + 4));
      }
      n_windows += n_own;
      n_blocks += blocks;
    }
    for (int i = 0; i < n_kv_heads * n_windows; ++i) {
      window_scales.push_back(0.01f + 0.02f * std::fabs(random.number()));
      for (int c = 0; c < head_dim; ++c) codes.push_back(static_cast<int8_t>(random.below(255) - 127));
    }
    basis.resize(size_t(n_kv_heads) * head_dim * coarse_dim);
    mean = random.numbers(size_t(n_kv_heads) * head_dim, 0.5f);
    coarse.resize(size_t(n_kv_heads) * n_windows * coarse_dim);
    coarse_scales.resize(size_t(n_kv_heads) * n_windows);
    if (kind == Coarse::rounded) {
      for (int g = 0; g < n_kv_heads; ++g) {
        for (int i = 0; i < coarse_dim; ++i) basis[(size_t(g) * head_dim + i) * coarse_dim + i] = 1;
      }
      round();
      return;
    }
    for (float& x : basis) x = random.number() * 0.5f;
    for (uint8_t& code : coarse) code = static_cast<uint8_t>(1 + random.below(31));
    for (float& scale : coarse_scales) scale = 0.05f + 0.1f * std::fabs(random.number());
  }

  // Coarse keys become what the keys' first components are, less the mean.
  void round() {
    for (int g = 0; g < n_kv_heads; ++g) {
      for (int j = 0; j < n_windows; ++j) {
        std::vector<float> x(coarse_dim);
        float largest = 0;
        for (int i = 0; i < coarse_dim; ++i) {
          x[i] = window_scales[size_t(g) * n_windows + j] * key(g, j)[i] - mean[g * head_dim + i];
          largest = std::max(largest, std::fabs(x[i]));
        }
        coarse_scales[size_t(g) * n_windows + j] = largest / 15;
        for (int i = 0; i < coarse_dim; ++i) {
          coarse[(size_t(g) * n_windows + j) * coarse_dim + i] = static_cast<uint8_t>(16 + std::nearbyint(x[i] / largest * 15));
        }
      }
    }
  }

  int8_t* key(int g, int j) { return codes.data() + (size_t(g) * n_windows + j) * head_dim; }
  // Window `to` of all heads becomes a copy of `from`; round afterwards.
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
  const int64_t n_slots = n_coarse_slots(memory.n_blocks);
  Aligned<uint8_t> keys(memory.n_kv_heads * n_slots * memory.coarse_dim);
  std::fill(keys.begin(), keys.end(), uint8_t(kCoarseZero));
  Floats scales = poisoned(memory.n_kv_heads * n_slots);
  std::vector<BlockWindows> windows;
  for (int g = 0; g < memory.n_kv_heads; ++g) {
    for (int b = 0; b < memory.n_blocks; ++b) {
      const size_t first = size_t(g) * memory.n_windows + memory.begin[b];
      windows.push_back({memory.codes.data() + first * d, memory.window_scales.data() + first, int8_t(memory.end[b] - memory.begin[b]),
                         memory.continued[b] == 1});
      for (int slot = 0; slot < windows.back().n; ++slot) {
        scales[g * n_slots + coarse_scale_index(b, slot)] = memory.coarse_scales[first + slot];
        for (int i = 0; i < memory.coarse_dim; ++i) {
          keys[g * n_slots * memory.coarse_dim + coarse_key_index(b, slot, i, memory.coarse_dim)] = memory.coarse[(first + slot) * memory.coarse_dim + i];
        }
      }
    }
  }
  const CoarseKeysArgs coarse{windows.data(), memory.basis.data(), memory.mean.data(), keys.data(), scales.data(), memory.n_blocks,
                              memory.n_kv_heads, d, memory.coarse_dim};
  Floats scratch = poisoned(select_blocks_memory(n, queries.n_heads, memory.n_blocks));
  Indices selected(size_t(n) * memory.n_kv_heads * k, -77);
  ops.select_blocks({queries.q.data() + size_t(first) * queries.n_heads * d, queries.q_scale.data() + first, windows.data(),
                     coarse, memory.n_blocks, selected.data(), k, scratch.data(), n, queries.n_heads,
                     memory.n_kv_heads, d},
                    stream);
  return selected;
}

struct Expected {
  std::vector<double> scores;  // of all blocks; −1: no candidate
  // How far the last candidate is before the first of the others, as a share; 1 where there are no others. Equals go by their index.
  double margin = 1;
};

// What the definition gives for token t and group g and a choice of k, with queries rounded to 16 bit or as they are. error: by how much
// a logit of the former may differ from one of the latter.
Expected expect(Memory memory, const Queries& queries, int t, int g, int k, bool rounded = true, double* error = nullptr) {
  const int d = memory.head_dim, n_dims = memory.coarse_dim, n_per_group = queries.n_heads / memory.n_kv_heads, n_blocks = memory.n_blocks;
  std::vector<std::vector<double>> z(n_per_group), y(n_per_group);
  std::vector<double> u(n_blocks, 0.0);
  const auto first_window = [&](int b) { return memory.begin[b] - (memory.continued[b] ? 1 : 0); };
  for (int h = 0; h < n_per_group; ++h) {
    const float* q = queries.q.data() + (size_t(t) * queries.n_heads + g * n_per_group + h) * d;
    float largest = 0;
    for (int i = 0; i < d; ++i) largest = std::max(largest, std::fabs(q[i]));
    const float s = largest < 1e-30f ? 1 : largest / 32512;
    std::vector<float> x(n_dims);
    double of_mean = 0;
    float largest_x = 0;
    for (int c = 0; c < d; ++c) of_mean += double{q[c]} * memory.mean[g * d + c];
    for (int i = 0; i < n_dims; ++i) {
      double sum = 0;
      for (int c = 0; c < d; ++c) sum += double{q[c]} * memory.basis[(size_t(g) * d + c) * n_dims + i];
      x[i] = float(sum);
      largest_x = std::max(largest_x, std::fabs(x[i]));
    }
    const float coarse_s = largest_x < 1e-30f ? 1 : largest_x / 63;
    for (int j = 0; j < memory.n_windows; ++j) {
      const size_t window = size_t(g) * memory.n_windows + j;
      double dot = 0, size = 0, coarse = 0;
      for (int i = 0; i < d; ++i) {
        dot += (rounded ? double{s} * std::nearbyint(q[i] / s) : double{q[i]}) * memory.codes[window * d + i];
        size += std::abs(memory.codes[window * d + i]);
      }
      for (int i = 0; i < n_dims; ++i) coarse += double{coarse_s} * std::nearbyint(x[i] / coarse_s) * (memory.coarse[window * n_dims + i] - 16);
      z[h].push_back(double{queries.q_scale[t]} * memory.window_scales[window] * dot);
      y[h].push_back(double{queries.q_scale[t]} * (memory.coarse_scales[window] * coarse + of_mean));
      // A component is off by half a step s at most (and by the rounding of q / s).
      if (error) *error = std::max(*error, double{queries.q_scale[t]} * memory.window_scales[window] * size * s * 0.51);
    }
    const double max = memory.n_windows > 0 ? *std::max_element(y[h].begin(), y[h].end()) : 0;
    double sum = 0;
    for (double logit : y[h]) sum += std::exp(logit - max);
    for (int b = 0; b < n_blocks; ++b) {
      // The last slot of the block before counts whether it reaches into this one or not.
      const bool has_before = b > 0 && memory.end[b - 1] - memory.begin[b - 1] == kBlockSlots;
      double peak = -INFINITY;
      for (int j = memory.begin[b] - has_before; j < memory.end[b]; ++j) peak = std::max(peak, y[h][j]);
      u[b] += std::exp(peak - max) / sum;
    }
  }
  Indices order(n_blocks);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int x, int y) { return u[x] > u[y]; });
  const int n_candidates = n_select_candidates(n_blocks, k);
  Expected expected{std::vector<double>(n_blocks, -1.0)};
  if (n_candidates > 0 && n_candidates < n_blocks) {
    const double last = u[order[n_candidates - 1]], next = u[order[n_candidates]];
    expected.margin = last == next ? 1 : (last - next) / last;
  }
  std::vector<bool> is_candidate(n_blocks, false);
  for (int i = 0; i < n_candidates; ++i) is_candidate[order[i]] = true;
  std::vector<double> a(memory.n_windows, 0.0);
  for (int h = 0; h < n_per_group; ++h) {
    // Any constant may be taken off all logits; this one lets none of them overflow.
    double max = -INFINITY, sum = 0;
    for (double x : z[h]) max = std::max(max, x);
    for (double x : y[h]) max = std::max(max, x);
    for (int b = 0; b < n_blocks; ++b) {
      for (int j = memory.begin[b]; j < memory.end[b]; ++j) sum += std::exp((is_candidate[b] ? z : y)[h][j] - max);
    }
    for (int j = 0; sum > 0 && j < memory.n_windows; ++j) a[j] += std::exp(z[h][j] - max) / sum;
  }
  for (int b = 0; b < n_blocks; ++b) {
    if (!is_candidate[b]) continue;
    expected.scores[b] = 0;
    for (int j = first_window(b); j < memory.end[b]; ++j) expected.scores[b] = std::max(expected.scores[b], a[j]);
  }
  return expected;
}

// A float's weight that is less than this is as good as none.
constexpr double kNothing = 1e-36;

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
    n_wrong += scores[b] * (1 + tolerance) + kNothing < least;
  }
  for (int b = 0; b < n; ++b) n_wrong += n_selected > 0 && !taken[b] && scores[b] > least * (1 + tolerance) + kNothing;
  CHECK(n_wrong == 0);
}

Indices part(const Indices& all, size_t row, int k) { return {all.begin() + row * k, all.begin() + (row + 1) * k}; }

// Every table against the scores in double; the tables of the family against each other, with any number of threads, and with tokens
// one by one. Returns their choice.
Indices check(const Memory& memory, const Queries& queries, int k, double tolerance = 0) {
  if (tolerance == 0) tolerance = n_select_candidates(memory.n_blocks, k) < memory.n_blocks ? 5e-3 : 2e-5;  // ops.h says how far sums of coarse weights may be off
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
        int n_undecided = 0;
        for (int t = 0; t < queries.n_tokens; ++t) {
          for (int g = 0; g < memory.n_kv_heads; ++g) {
            const Expected expected = expect(memory, queries, t, g, k);
            // Which of two nearly equal blocks is a candidate, rounding decides; that moves all scores.
            if (expected.margin > tolerance) check_choice(part(selected, size_t(t) * memory.n_kv_heads + g, k), expected.scores, tolerance);
            else ++n_undecided;
          }
        }
        CHECK(n_undecided < queries.n_tokens * memory.n_kv_heads);
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

}  // namespace

TEST_CASE("select_blocks: random memories") {
  Random random(1);
  check(Memory(random_lengths(60, random), 2, 64, random), Queries(11, 14, 64, random), 64);
  check(Memory(random_lengths(40, random), 2, 16, random), Queries(3, 4, 16, random), 6);
  check(Memory(random_lengths(30, random), 1, 128, random), Queries(2, 32, 128, random), 20);
  check(Memory(random_lengths(30, random), 3, 24, random), Queries(9, 15, 24, random), 1);
  check(Memory(std::vector<int>(100, 1), 2, 8, random), Queries(2, 2, 8, random), 33);
  check(Memory(std::vector<int>(30, 65), 1, 8, random), Queries(2, 3, 8, random), 17);  // second blocks have no window of their own
  check(Memory(std::vector<int>(90, 65), 1, 8, random), Queries(2, 3, 8, random), 17);
}

TEST_CASE("coarse_keys: what windows have beyond the mean, in the basis") {
  Random random(9);
  for (const auto& [head_dim, coarse_dim] : {std::pair{64, 32}, {128, 64}, {24, 8}, {16, 16}}) {
    CAPTURE(head_dim);
    Memory memory({495, 1, 65, 64, 300, 16, 130}, 2, head_dim, random);
    const Floats basis = random.numbers(size_t(2) * head_dim * coarse_dim, 0.3f);
    std::vector<BlockWindows> windows;
    for (int g = 0; g < 2; ++g) {
      for (int b = 0; b < memory.n_blocks; ++b) {
        const size_t first = size_t(g) * memory.n_windows + memory.begin[b];
        windows.push_back({memory.codes.data() + first * head_dim, memory.window_scales.data() + first, int8_t(memory.end[b] - memory.begin[b]), memory.continued[b] == 1});
      }
    }
    const int64_t n_slots = n_coarse_slots(memory.n_blocks);
    std::vector<uint8_t> first_keys;
    Floats first_scales;
    for (const Ops* ops : tables_under_test()) {
      CAPTURE(std::string(ops->name));
      for (int n_threads : {1, 3}) {
        Stream stream(n_threads);
        std::vector<uint8_t> keys(2 * n_slots * coarse_dim, 77);
        Floats scales(2 * n_slots, 77.0f);
        ops->coarse_keys({windows.data(), basis.data(), memory.mean.data(), keys.data(), scales.data(), memory.n_blocks, 2, head_dim, coarse_dim}, stream);
        int n_wrong = 0;
        for (int g = 0; g < 2; ++g) {
          for (int b = 0; b < n_slots / kBlockSlots; ++b) {
            for (int slot = 0; slot < kBlockSlots; ++slot) {
              const float scale = scales[g * n_slots + coarse_scale_index(b, slot)];
              const bool is_window = b < memory.n_blocks && memory.begin[b] + slot < memory.end[b];
              n_wrong += std::isnan(scale) == is_window;
              double largest = 0;
              for (int i = 0; i < coarse_dim; ++i) {
                const int code = keys[g * n_slots * coarse_dim + coarse_key_index(b, slot, i, coarse_dim)];
                n_wrong += code < 1 || code > 31 || (!is_window && code != kCoarseZero);
                if (!is_window) continue;
                const int j = memory.begin[b] + slot;
                double x = 0;
                for (int c = 0; c < head_dim; ++c) {
                  x += double{basis[(size_t(g) * head_dim + c) * coarse_dim + i]} *
                       (double{memory.window_scales[size_t(g) * memory.n_windows + j]} * memory.key(g, j)[c] - memory.mean[g * head_dim + c]);
                }
                largest = std::max(largest, std::fabs(x));
                n_wrong += std::fabs(x - double{scale} * (code - kCoarseZero)) > 0.5001 * scale;
              }
              n_wrong += is_window && std::fabs(largest - 15 * double{scale}) > 1e-5 * largest;
            }
          }
        }
        CHECK(n_wrong == 0);
        if (ops == backends().front()) continue;
        if (first_keys.empty()) {
          first_keys = keys;
          first_scales = scales;
        }
        CHECK(keys == first_keys);
        CHECK(std::memcmp(scales.data(), first_scales.data(), scales.size() * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("select_blocks: only candidates are chosen, whatever their windows say") {
  Random random(8);
  const Memory memory(random_lengths(60, random), 2, 32, random, Coarse::random);
  const Queries queries(4, 6, 32, random, 2);
  int n_passed_over = 0;
  for (int k : {1, 2, 5, 20}) {
    const Indices selected = check(memory, queries, k);
    for (int t = 0; t < 4; ++t) {
      // The best by its windows, had all been candidates.
      const std::vector<double> all = expect(memory, queries, t, 0, memory.n_blocks).scores;
      const Indices chosen = part(selected, size_t(t) * 2, k);
      n_passed_over += std::find(chosen.begin(), chosen.end(), std::max_element(all.begin(), all.end()) - all.begin()) == chosen.end();
    }
  }
  CHECK(n_passed_over > 4);
}

TEST_CASE("select_blocks: several sections") {
  Random random(2);
  constexpr int kSectionBlocks = kSelectChunkBlocks * kSelectSectionChunks;
  const Memory memory(std::vector<int>(2 * kSectionBlocks / 8 + 3, 495), 1, 16, random);
  REQUIRE(memory.n_blocks > 2 * kSectionBlocks);
  for (int k : {10, 64}) check(memory, Queries(6, 2, 16, random, 3), k);
  // What reaches into a block counts there, at the border of two sections, too: here it is what all heads want.
  Memory marked(std::vector<int>(30, 64 * 99), 1, 16, random);
  Queries queries(1, 2, 16, random, 3);
  std::copy_n(queries.q.begin(), 16, queries.q.begin() + 16);
  const int wanted = 4 * kSectionBlocks - 1;
  REQUIRE(marked.begin[kSectionBlocks] == wanted + 1);
  REQUIRE(marked.continued[kSectionBlocks]);
  for (int c = 0; c < 16; ++c) marked.key(0, wanted)[c] = queries.q[c] < 0 ? -127 : 127;
  marked.window_scales[wanted] = 0.05f;
  marked.round();
  CHECK(check(marked, queries, 2) == Indices{kSectionBlocks - 1, kSectionBlocks});
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
  memory.round();
  const Queries queries(3, 6, 32, random);
  for (int k : {1, 5, 39, 40, 41, 100}) {
    const Indices selected = check(memory, queries, k);
    for (size_t row = 0; row < 6; ++row) {
      const std::vector<double> scores = expect(memory, queries, int(row / 2), int(row % 2), k).scores;
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

TEST_CASE("select_blocks: near ties are decided by the scores") {
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
    memory.round();
    for (int k : {8, 12, 30}) check(memory, queries, k, 1e-3);  // z in the hundreds: rounded to some 1e-4
  }
}

TEST_CASE("select_blocks: logits so far apart that most weights are 0") {
  Random random(5);
  const Memory memory(random_lengths(20, random), 1, 16, random);
  const Queries queries(1, 1, 16, random, 3000);
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
  int n_undecided = 0;
  for (int t = 0; t < 6; ++t) {
    for (int g = 0; g < 2; ++g) {
      // With logits off by ε a weight is off by e^ε, a sum of them, too: a score by e^2ε, and so is the least of the best.
      double error = 0;
      expect(memory, queries, t, g, 64, true, &error);
      CHECK(error < 0.01);
      const Expected expected = expect(memory, queries, t, g, 64, false);
      if (expected.margin > std::expm1(4 * error)) check_choice(part(selected, size_t(t) * 2 + g, 64), expected.scores, std::expm1(4 * error));
      else ++n_undecided;
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
