#include "test/kernels/support.h"

using namespace sala;

// The definition in long double, with the roundings that belong to it.
static void expected_row(int64_t position, int head_dim, float theta, Floats& cos, Floats& sin) {
  for (int p = 0; p < head_dim / 2; ++p) {
    const float exponent = static_cast<float>(2 * p) / static_cast<float>(head_dim);
    const float frequency = 1.0f / static_cast<float>(std::pow(static_cast<long double>(theta), exponent));
    const float angle = static_cast<float>(position) * frequency;
    cos.push_back(static_cast<float>(std::cos(static_cast<long double>(angle))));
    sin.push_back(static_cast<float>(std::sin(static_cast<long double>(angle))));
  }
}

static void check_table(int64_t first_position, int n_tokens, int head_dim, float theta) {
  CAPTURE(first_position);
  CAPTURE(head_dim);
  Floats expected_cos, expected_sin;
  for (int t = 0; t < n_tokens; ++t) expected_row(first_position + t, head_dim, theta, expected_cos, expected_sin);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    Stream stream(2);
    Floats cos = poisoned(expected_cos.size()), sin = cos;
    ops->rope_table({first_position, n_tokens, head_dim, theta, cos.data(), sin.data()}, stream);
    CHECK(same_bits(cos, expected_cos));
    CHECK(same_bits(sin, expected_sin));
  }
}

TEST_CASE("rope_table is the fp32 formula, correctly rounded, at any position") {
  for (int64_t position : {0, 1, 524287, 1048575, 2097151}) {
    for (float theta : {1e4f, 1e6f}) {
      for (int head_dim : {16, 64, 80, 128}) check_table(position, 1, head_dim, theta);
    }
  }
  check_table(0, 5000, 64, 1e6f);
  check_table(1046000, 5000, 128, 1e4f);
}

TEST_CASE("rope") {
  for (int head_dim : {2, 16, 64, 72, 128}) {
    for (int n_tokens : {1, 65}) {
      CAPTURE(head_dim);
      const int n_heads = 3;
      Random random(head_dim);
      const Floats x = random.numbers(size_t(n_tokens) * n_heads * head_dim);
      const Floats angles = random.numbers(size_t(n_tokens) * head_dim / 2, 3);
      Floats cos, sin;
      for (float angle : angles) {
        cos.push_back(std::cos(angle));
        sin.push_back(std::sin(angle));
      }
      const auto run = [&](const Ops& ops, Stream& stream) {
        Floats out = x;
        ops.rope({out.data(), cos.data(), sin.data(), n_tokens, n_heads, head_dim}, stream);
        return out;
      };
      check_tables(run, 2e-7);
    }
  }
}
