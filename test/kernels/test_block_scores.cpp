#include "test/kernels/support.h"

using namespace sala;

namespace {

// Windows of 16 over a sequence, blocks of 64: block b covers windows 4b − 1 … 4b + 3.
struct Scene {
  int n_tokens, n_heads, n_kv_heads, head_dim, n_k1, n_k2;
  Floats q, q_scale, k1, k2;  // keys row by row
  std::vector<int32_t> visible_k1, visible_k2, begin, end;

  Scene(int n_tokens, int n_heads, int n_kv_heads, int head_dim, int n_k1)
      : n_tokens(n_tokens), n_heads(n_heads), n_kv_heads(n_kv_heads), head_dim(head_dim), n_k1(n_k1), n_k2(n_k1 / 4) {
    Random random(n_k1);
    q = random.numbers(size_t(n_tokens) * n_heads * head_dim);
    q_scale = Floats(n_tokens, 1.5f / std::sqrt(float(head_dim)));
    k1 = random.numbers(size_t(n_kv_heads) * n_k1 * head_dim, 2);
    k2 = random.numbers(size_t(n_kv_heads) * n_k2 * head_dim, 2);
    for (int t = 0; t < n_tokens; ++t) {
      visible_k1.push_back(t == 0 ? 0 : random.below(n_k1 + 1));
      visible_k2.push_back(std::min(visible_k1.back() / 4, n_k2));
    }
    for (int b = 0; b < n_k1 / 4 + 2; ++b) {
      begin.push_back(std::min(std::max(0, 4 * b - 1), n_k1));
      end.push_back(std::min(4 * b + 4, n_k1));
    }
    begin.back() = end.back();  // an empty range
  }

  Floats run(const Ops& ops, Stream& stream, bool causal, bool with_k2, int first, int n) const {
    const int n_blocks = static_cast<int>(begin.size());
    const Floats turned_k1 = turned(k1, n_kv_heads, n_k1, head_dim), turned_k2 = turned(k2, n_kv_heads, n_k2, head_dim);
    const int64_t k1_stride = turned_stride(n_k1, head_dim), k2_stride = turned_stride(n_k2, head_dim);
    Floats scores = poisoned(size_t(n) * n_kv_heads * n_blocks);
    ops.block_scores({q.data() + size_t(first) * n_heads * head_dim, q_scale.data() + first, turned_k1.data(),
                      with_k2 ? turned_k2.data() : nullptr, k1_stride, k2_stride, n_k1,
                      with_k2 ? n_k2 : 0, causal ? visible_k1.data() + first : nullptr,
                      causal ? visible_k2.data() + first : nullptr, begin.data(), end.data(), n_blocks, scores.data(),
                      n, n_heads, n_kv_heads, head_dim},
                     stream);
    return scores;
  }
};

void check(int n_tokens, int n_heads, int n_kv_heads, int head_dim, int n_k1) {
  const Scene scene(n_tokens, n_heads, n_kv_heads, head_dim, n_k1);
  for (bool causal : {false, true}) {
    for (bool with_k2 : {false, true}) {
      CAPTURE(n_tokens);
      CAPTURE(n_k1);
      CAPTURE(causal);
      CAPTURE(with_k2);
      const auto run = [&](const Ops& ops, Stream& stream) {
        return scene.run(ops, stream, causal, with_k2, 0, n_tokens);
      };
      const Floats whole = check_tables(run, 2e-6);
      Floats one_by_one;
      Stream stream(1);
      for (int t = 0; t < n_tokens; ++t) {
        append(one_by_one, scene.run(*backends().back(), stream, causal, with_k2, t, 1));
      }
      CHECK(same_bits(one_by_one, whole));
    }
  }
}

}  // namespace

TEST_CASE("block_scores") {
  check(3, 14, 2, 64, 127);
  check(20, 14, 2, 64, 65);
  check(5, 4, 2, 16, 1000);
  check(2, 32, 2, 128, 64);
  check(2, 2, 2, 24, 3);
  check(1, 2, 1, 16, 0);
}

TEST_CASE("blocks that share their best window have equal scores") {
  Scene scene(1, 4, 1, 16, 8);
  // Window 3 belongs to block 0 and to block 1; make it the best of all for every head.
  for (int h = 1; h < 4; ++h) std::copy_n(scene.q.begin(), 16, scene.q.begin() + 16 * h);
  for (int c = 0; c < 16; ++c) scene.k1[3 * 16 + c] = 5 * scene.q[c];
  Stream stream(1);
  for (const Ops* ops : backends()) {
    const Floats scores = scene.run(*ops, stream, false, false, 0, 1);
    CHECK(scores[0] == scores[1]);
    CHECK(scores[0] > 0);
    CHECK(scores.back() == -INFINITY);
  }
}
