#include "test/kernels/support.h"

using namespace sala;

static const int64_t kSizes[] = {1, 7, 8, 63, 64, 65, 1000, 1023, 1024, 1025, 20000};

TEST_CASE("swiglu") {
  for (int64_t n : kSizes) {
    CAPTURE(n);
    Random random(n);
    Floats gate = random.numbers(n, 20);
    const Floats up = random.numbers(n);
    gate[0] = -200;  // e^200 is no float; the result is 0
    const auto run = [&](const Ops& ops, Stream& stream) {
      Floats out = poisoned(n);
      ops.swiglu({gate.data(), up.data(), out.data(), n}, stream);
      return out;
    };
    const Floats apart = check_tables(run, 4e-7);
    Stream stream(2);
    Floats in_place = gate;
    backends().back()->swiglu({in_place.data(), up.data(), in_place.data(), n}, stream);
    CHECK(same_bits(in_place, apart));
  }
}

TEST_CASE("sigmoid_gate") {
  for (int64_t n : kSizes) {
    CAPTURE(n);
    Random random(n);
    const Floats x = random.numbers(n), gate = random.numbers(n, 20);
    const auto run = [&](const Ops& ops, Stream& stream) {
      Floats out = x;
      ops.sigmoid_gate({out.data(), gate.data(), n}, stream);
      return out;
    };
    check_tables(run, 4e-7);
  }
}

TEST_CASE("add_scaled is one FMA, so equal to reference") {
  for (int64_t n : kSizes) {
    CAPTURE(n);
    Random random(n);
    const Floats x = random.numbers(n), y = random.numbers(n);
    const auto run = [&](const Ops& ops, Stream& stream) {
      Floats out = x;
      ops.add_scaled({out.data(), y.data(), 0.24748737f, n}, stream);
      return out;
    };
    check_tables(run, 0);
  }
}

TEST_CASE("an element's bits do not depend on its place") {
  Random random(5);
  const Floats gate = random.numbers(40, 5), up = random.numbers(40);
  Stream stream(1);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    Floats whole = poisoned(40), single = poisoned(40);
    ops->swiglu({gate.data(), up.data(), whole.data(), 40}, stream);
    for (int i = 0; i < 40; ++i) ops->swiglu({&gate[i], &up[i], &single[i], 1}, stream);
    CHECK(same_bits(whole, single));
  }
}
