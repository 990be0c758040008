#include "test/kernels/support.h"

using namespace sala;

static void check(int n_rows, int kernel, int stride, int n_windows, int head_dim) {
  CAPTURE(n_rows);
  CAPTURE(kernel);
  CAPTURE(head_dim);
  const int n_kv_heads = 2;
  Random random(n_rows);
  const Floats k = random.numbers(size_t(n_kv_heads) * n_rows * head_dim);
  const auto compress = [&](const Ops& ops, Stream& stream, Floats& out, int first, int n) {
    ops.compress_keys({k.data(), int64_t{n_rows} * head_dim, n_rows, n_kv_heads, head_dim, kernel, stride, first, n,
                       out.data(), int64_t{n_windows} * head_dim},
                      stream);
  };
  const auto run = [&](const Ops& ops, Stream& stream) {
    Floats out = poisoned(size_t(n_kv_heads) * n_windows * head_dim);
    compress(ops, stream, out, 0, n_windows);
    return out;
  };
  const Floats whole = check_tables(run, 5e-7);
  for (const Ops* ops : backends()) {
    if (ops == backends().front()) continue;
    Stream stream(2);
    Floats window_by_window = poisoned(whole.size());
    for (int j = 0; j < n_windows; ++j) compress(*ops, stream, window_by_window, j, 1);
    CHECK(same_bits(window_by_window, whole));
  }
}

TEST_CASE("compress_keys: complete windows, and those that the end cuts off") {
  check(1000, 32, 16, (1000 - 32) / 16 + 1, 64);
  check(1000, 128, 64, (1000 - 128) / 64 + 1, 128);
  check(495, 32, 16, 30, 64);  // the last window starts at 464 and has 31 rows
  check(1, 32, 16, 1, 16);
  check(20, 32, 16, 2, 24);
  check(20, 32, 16, 0, 16);
}
