#include "test/kernels/support.h"

using namespace sala;

static const int kSizes[] = {1, 7, 8, 63, 64, 65, 1000, 1023, 1024, 1025, 20000};

TEST_CASE("swiglu") {
  for (int n : kSizes) {
    CAPTURE(n);
    Random random(n);
    Floats gate = random.numbers(n, 20);
    const Floats up = random.numbers(n);
    gate[0] = -200;  // e^200 is no float; the result is 0
    check_tables([&](const Ops& ops, Stream& stream) { return swiglu(ops, stream, gate, up); }, 4e-7);
  }
}

TEST_CASE("sigmoid_gate") {
  for (int n : kSizes) {
    for (int n_rows : {1, 5}) {
      CAPTURE(n);
      Random random(n);
      const Floats x = random.numbers(size_t(n) * n_rows), gate = random.numbers(x.size(), 20);
      const auto run = [&](const Ops& ops, Stream& stream) {
        Floats out = x;
        ops.sigmoid_gate({out.data(), gate.data(), n_rows, n}, stream);
        return out;
      };
      check_tables(run, 4e-7);
    }
  }
}

TEST_CASE("sigmoid_gate rounds its rows as quantize_rows does") {
  Random random(7);
  const int n_rows = 9, n = 96;
  const Floats x = random.numbers(n_rows * n), gate = random.numbers(n_rows * n, 5);
  std::vector<int32_t> order(n);
  for (int i = 0; i < n; ++i) order[i] = (i * 5 + 1) % n;
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(std::string(ops->name));
    for (const int32_t* columns : {static_cast<const int32_t*>(nullptr), static_cast<const int32_t*>(order.data())}) {
      Stream stream(3);
      Floats apart = x, together = x;
      ops->sigmoid_gate({apart.data(), gate.data(), n_rows, n}, stream);
      Rounded fused(n_rows, n, 32);
      ops->sigmoid_gate({together.data(), gate.data(), n_rows, n, fused.rows8(32, columns)}, stream);
      CHECK(same_bits(together, apart));
      CHECK(fused == rounded(*ops, stream, apart, n, 32, columns));
    }
  }
}

TEST_CASE("an element's bits do not depend on its place") {
  Random random(5);
  const Floats gate = random.numbers(40, 5), up = random.numbers(40);
  Stream stream(1);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    const Floats whole = swiglu(*ops, stream, gate, up);
    Floats single;
    for (int i = 0; i < 40; ++i) append(single, swiglu(*ops, stream, {gate[i]}, {up[i]}));
    CHECK(same_bits(whole, single));
  }
}
