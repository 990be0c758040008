#include <numeric>

#include "test/kernels/support.h"

using namespace sala;

namespace {

struct Sequence {
  int n_tokens, n_heads, n_kv_heads, head_dim;
  Floats q, k, v, log_decay, start;
  float scale;

  Sequence(int n_tokens, int n_heads, int n_kv_heads, int head_dim)
      : n_tokens(n_tokens), n_heads(n_heads), n_kv_heads(n_kv_heads), head_dim(head_dim),
        scale(1 / std::sqrt(float(head_dim))) {
    Random random(n_tokens * 1000 + head_dim);
    q = random.numbers(size_t(n_tokens) * n_heads * head_dim);
    k = random.numbers(size_t(n_tokens) * n_kv_heads * head_dim);
    v = random.numbers(size_t(n_tokens) * n_kv_heads * head_dim);
    start = random.numbers(size_t(n_heads) * head_dim * head_dim);
    // From the fastest decay of the published model to none at all.
    for (int h = 0; h < n_heads; ++h) log_decay.push_back(h == n_heads - 1 ? 0 : -std::exp2(-0.25f - 2 * h));
  }

  // Outputs, then the state, after running `calls` of so many tokens each.
  Floats run(const Ops& ops, Stream& stream, const std::vector<int>& calls) const {
    Floats s = start, out = poisoned(q.size());
    // Rows that are not there yet are poison too: nothing may depend on them.
    Floats k_rows = poisoned(size_t(n_kv_heads) * kLightningChunk * head_dim), v_rows = k_rows;
    LightningState state{s.data(), k_rows.data(), v_rows.data(), 0};
    int t = 0;
    for (int n : calls) {
      const size_t at = size_t(t) * n_heads * head_dim, kv_at = size_t(t) * n_kv_heads * head_dim;
      ops.lightning_attn({q.data() + at, k.data() + kv_at, v.data() + kv_at, log_decay.data(), &state, out.data() + at,
                          n, n_heads, n_kv_heads, head_dim, scale},
                         stream);
      t += n;
    }
    CHECK(state.n_rows == n_tokens % kLightningChunk);
    append(out, s);
    for (int g = 0; g < n_kv_heads; ++g) {
      const auto rows = [&](const Floats& from) {
        const auto first = from.begin() + size_t(g) * kLightningChunk * head_dim;
        append(out, Floats(first, first + size_t(state.n_rows) * head_dim));
      };
      rows(k_rows);
      rows(v_rows);
    }
    return out;
  }

  // S_t = γ S_(t−1) + k_t v_tᵀ, o_t = scale · S_tᵀ q_t, in double.
  Floats recurrence() const {
    const int d = head_dim;
    Floats out(q.size());
    for (int h = 0; h < n_heads; ++h) {
      std::vector<double> s(start.begin() + size_t(h) * d * d, start.begin() + size_t(h + 1) * d * d);
      const double gamma = std::exp(double{log_decay[h]});
      for (int t = 0; t < n_tokens; ++t) {
        const size_t kv = (size_t(t) * n_kv_heads + h / (n_heads / n_kv_heads)) * d;
        for (int i = 0; i < d; ++i) {
          for (int j = 0; j < d; ++j) s[i * d + j] = gamma * s[i * d + j] + double{k[kv + i]} * v[kv + j];
        }
        const size_t row = (size_t(t) * n_heads + h) * d;
        for (int j = 0; j < d; ++j) {
          double o = 0;
          for (int i = 0; i < d; ++i) o += s[i * d + j] * q[row + i];
          out[row + j] = static_cast<float>(scale * o);
        }
      }
    }
    return out;
  }
};

void check(int n_tokens, int n_heads, int n_kv_heads, int head_dim) {
  CAPTURE(n_tokens);
  CAPTURE(n_heads);
  CAPTURE(head_dim);
  const Sequence sequence(n_tokens, n_heads, n_kv_heads, head_dim);
  const Floats expected = sequence.recurrence();
  const auto at_once = [&](const Ops& ops, Stream& stream) { return sequence.run(ops, stream, {n_tokens}); };
  const Floats whole = check_tables(at_once, 1e-6);
  CHECK(error_of(Floats(whole.begin(), whole.begin() + expected.size()), expected) <= 1e-6);

  Random random(n_tokens);
  std::vector<std::vector<int>> splits = {std::vector<int>(n_tokens, 1)};
  for (int i = 0; i < 3; ++i) {
    splits.emplace_back();
    for (int t = 0; t < n_tokens; t += splits.back().back()) {
      splits.back().push_back(std::min(n_tokens - t, random.below(i == 0 ? 5 : 100) + (i == 1)));
    }
  }
  for (const auto& calls : splits) {
    CAPTURE(calls.size());
    Stream stream(2);
    CHECK(same_bits(sequence.run(*backends().back(), stream, calls), whole));
  }
}

}  // namespace

TEST_CASE("lightning_attn equals the recurrence, and its bits do not depend on the calls") {
  for (int n_tokens : {1, 2, 63, 64, 65, 127, 128, 200}) check(n_tokens, 3, 3, 16);
  check(150, 4, 2, 24);
  check(130, 14, 14, 64);
  check(70, 2, 1, 128);
}

TEST_CASE("every table gives the same bits token by token") {
  const Sequence sequence(70, 2, 2, 32);
  Stream stream(1);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    CHECK(same_bits(sequence.run(*ops, stream, std::vector<int>(70, 1)), sequence.run(*ops, stream, {70})));
  }
}

TEST_CASE("an empty call changes nothing") {
  const Sequence sequence(70, 2, 2, 16);
  Stream stream(1);
  CHECK(same_bits(sequence.run(*backends().back(), stream, {0, 64, 0, 6, 0}),
                  sequence.run(*backends().back(), stream, {70})));
}

TEST_CASE("norms and rotation within the call are those before it, and sequences of one call are those of a call each") {
  constexpr int kHeads = 4, kKvHeads = 2, kDim = 32;
  Random random(9);
  const Floats q_norm = random.numbers(kDim, 2), k_norm = random.numbers(kDim, 2);
  const Sequence sequences[] = {Sequence(70, kHeads, kKvHeads, kDim), Sequence(5, kHeads, kKvHeads, kDim), Sequence(130, kHeads, kKvHeads, kDim)};
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(std::string(ops->name));
    Stream stream(3);
    std::vector<Floats> expected, out, s, k_rows, v_rows, cos, sin;
    std::vector<LightningState> states;
    for (const Sequence& sequence : sequences) {
      const int n = sequence.n_tokens;
      cos.push_back(poisoned(n * kDim / 2));
      sin.push_back(poisoned(n * kDim / 2));
      ops->rope_table({100, n, kDim, 1e4f, cos.back().data(), sin.back().data()}, stream);
      Sequence prepared = sequence;
      ops->rms_norm({prepared.q.data(), q_norm.data(), prepared.q.data(), n * kHeads, kDim, 1e-6f}, stream);
      ops->rms_norm({prepared.k.data(), k_norm.data(), prepared.k.data(), n * kKvHeads, kDim, 1e-6f}, stream);
      ops->rope({prepared.q.data(), cos.back().data(), sin.back().data(), n, kHeads, kDim}, stream);
      ops->rope({prepared.k.data(), cos.back().data(), sin.back().data(), n, kKvHeads, kDim}, stream);
      expected.push_back(prepared.run(*ops, stream, {n}));
      out.push_back(poisoned(sequence.q.size()));
      s.push_back(sequence.start);
      k_rows.push_back(poisoned(kKvHeads * kLightningChunk * kDim));
      v_rows.push_back(k_rows.back());
    }
    LightningAttnArgs args[3];
    for (int i = 0; i < 3; ++i) states.push_back({s[i].data(), k_rows[i].data(), v_rows[i].data(), 0});
    for (int i = 0; i < 3; ++i) {
      const Sequence& sequence = sequences[i];
      args[i] = {.q = sequence.q.data(), .k = sequence.k.data(), .v = sequence.v.data(), .log_decay = sequence.log_decay.data(),
                 .state = &states[i], .out = out[i].data(), .n_tokens = sequence.n_tokens, .n_heads = kHeads, .n_kv_heads = kKvHeads,
                 .head_dim = kDim, .scale = sequence.scale, .q_norm = q_norm.data(), .k_norm = k_norm.data(), .eps = 1e-6f,
                 .cos = cos[i].data(), .sin = sin[i].data(), .next = i < 2 ? &args[i + 1] : nullptr};
    }
    ops->lightning_attn(args[0], stream);
    for (int i = 0; i < 3; ++i) {
      append(out[i], s[i]);
      CHECK(same_bits(out[i], Floats(expected[i].begin(), expected[i].begin() + out[i].size())));
      CHECK(states[i].n_rows == sequences[i].n_tokens % kLightningChunk);
    }
  }
}
