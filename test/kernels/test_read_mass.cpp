#include "test/kernels/support.h"

using namespace sala;

static void check(int n_rows, const std::vector<int>& span_rows, int head_dim, bool int8) {
  CAPTURE(n_rows);
  CAPTURE(head_dim);
  CAPTURE(int8);
  Random random(n_rows);
  const int n_spans = static_cast<int>(span_rows.size());
  const Floats q = random.numbers(size_t(n_rows) * head_dim, 0.5f);
  std::vector<Floats> keys, scales;
  std::vector<std::vector<int8_t>> codes;
  std::vector<ReadSpan> spans;
  for (int n : span_rows) {
    keys.push_back(random.numbers(size_t(n) * head_dim, 2));
    scales.push_back(random.numbers(n, 0.02f));
    codes.emplace_back();
    for (int i = 0; i < n * head_dim; ++i) codes.back().push_back(static_cast<int8_t>(random.below(256) - 128));
    spans.push_back(int8 ? ReadSpan{codes.back().data(), scales.back().data(), n}
                         : ReadSpan{keys.back().data(), nullptr, n});
  }
  const auto read = [&](const Ops& ops, Stream& stream, int first, int n) {
    Floats max = poisoned(size_t(n) * n_spans), sum = max;
    const float* rows = q.data() + size_t(first) * head_dim;
    ops.read_mass({rows, spans.data(), max.data(), sum.data(), n, n_spans, head_dim}, stream);
    append(max, sum);
    return max;
  };
  // The sum is relative to a maximum that is itself rounded, so maxima and sums are compared apart.
  Stream stream(1);
  const size_t half = size_t(n_rows) * n_spans;
  const auto maxima = [&](const Ops& ops, Stream& s) {
    Floats all = read(ops, s, 0, n_rows);
    all.resize(half);
    return all;
  };
  const auto sums = [&](const Ops& ops, Stream& s) {
    const Floats all = read(ops, s, 0, n_rows);
    return Floats(all.begin() + half, all.end());
  };
  check_tables(maxima, 1e-6);
  check_tables(sums, 4e-6);

  const Floats together = read(*backends().back(), stream, 0, n_rows);
  for (int r = 0; r < n_rows; ++r) {
    const Floats alone = read(*backends().back(), stream, r, 1);
    for (int s = 0; s < n_spans; ++s) {
      CHECK(alone[s] == together[size_t(r) * n_spans + s]);
      CHECK(alone[n_spans + s] == together[half + size_t(r) * n_spans + s]);
    }
  }
}

TEST_CASE("read_mass") {
  for (bool int8 : {false, true}) {
    check(1, {1, 63, 64, 65, 127}, 64, int8);
    check(9, {495, 480, 0, 17, 1000}, 64, int8);
    check(300, {65, 1}, 16, int8);
    check(7, {100}, 128, int8);
  }
  check(3, {}, 64, true);
}

TEST_CASE("an empty span gives −∞ and 0") {
  const Floats q(16, 1.0f);
  const ReadSpan span{nullptr, nullptr, 0};
  for (const Ops* ops : backends()) {
    Stream stream(1);
    float max = NAN, sum = NAN;
    ops->read_mass({q.data(), &span, &max, &sum, 1, 1, 16}, stream);
    CHECK(max == -INFINITY);
    CHECK(sum == 0);
  }
}
