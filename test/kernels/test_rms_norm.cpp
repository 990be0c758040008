#include "test/kernels/support.h"

using namespace sala;

static void check(int n_tokens, int hidden_size, float scale) {
  CAPTURE(n_tokens);
  CAPTURE(hidden_size);
  Random random(hidden_size);
  const Floats x = random.numbers(size_t(n_tokens) * hidden_size, scale), weight = random.numbers(hidden_size, 3);
  const auto norm = [&](const Ops& ops, Stream& stream, const float* rows, float* out, int n) {
    ops.rms_norm({rows, weight.data(), out, n, hidden_size, 1e-6f}, stream);
  };
  const auto run = [&](const Ops& ops, Stream& stream) {
    Floats out = poisoned(x.size());
    norm(ops, stream, x.data(), out.data(), n_tokens);
    return out;
  };
  const Floats together = check_tables(run, 1e-6);

  Stream stream(1);
  Floats in_place = x, one_by_one = poisoned(x.size());
  norm(*backends().back(), stream, in_place.data(), in_place.data(), n_tokens);
  for (int t = 0; t < n_tokens; ++t) {
    const size_t at = size_t(t) * hidden_size;
    norm(*backends().back(), stream, x.data() + at, one_by_one.data() + at, 1);
  }
  CHECK(same_bits(in_place, together));
  CHECK(same_bits(one_by_one, together));
}

TEST_CASE("rms_norm") {
  for (int hidden_size : {1, 8, 63, 64, 65, 127, 896, 1000}) check(3, hidden_size, 1);
  check(1000, 64, 10);
  check(2, 64, 1e-6f);  // eps counts
  check(0, 64, 1);
}

TEST_CASE("rms_norm gates and rounds its rows as the operators apart do") {
  Random random(8);
  const int n_rows = 70, n = 96;
  const Floats x = random.numbers(n_rows * n, 3), weight = random.numbers(n, 2), gate = random.numbers(n_rows * n, 5);
  std::vector<int32_t> order(n);
  for (int i = 0; i < n; ++i) order[i] = (i * 5 + 1) % n;
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(std::string(ops->name));
    for (bool gated : {false, true}) {
      for (const int32_t* columns : {static_cast<const int32_t*>(nullptr), static_cast<const int32_t*>(order.data())}) {
        for (bool keeps_rows : {false, true}) {
          Stream stream(3);
          Floats apart = poisoned(x.size()), together = poisoned(x.size());
          ops->rms_norm({x.data(), weight.data(), apart.data(), n_rows, n, 1e-6f}, stream);
          if (gated) ops->sigmoid_gate({apart.data(), gate.data(), n_rows, n}, stream);
          Rounded fused(n_rows, n, 32);
          ops->rms_norm({x.data(), weight.data(), keeps_rows ? together.data() : nullptr, n_rows, n, 1e-6f, gated ? gate.data() : nullptr,
                         fused.rows8(32, columns)},
                        stream);
          if (keeps_rows) CHECK(same_bits(together, apart));
          CHECK(fused == rounded(*ops, stream, apart, n, 32, columns));
        }
      }
    }
  }
}
