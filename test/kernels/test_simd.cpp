// The portable form of the eight lanes; that the others equal it is tested through the operators.
#define SALA_ISA lanes_under_test
#include "kernels/cpu/simd.h"
#include "kernels/matrix.h"
#include "test/kernels/support.h"

using namespace sala;
using namespace sala::lanes_under_test;

// Distance from the double result in units of the last place of its fp32 rounding.
static double ulps(float found, double expected) {
  return std::fabs(found - expected) / std::ldexp(1.0, std::ilogb(static_cast<float>(expected)) - 23);
}

TEST_CASE("exp stays within 1.01 ulp over its whole range") {
  double worst = 0;
  for (int i = 0; i < 2000000; ++i) {
    const float x = -86.5f + static_cast<float>(i) * (175.2f / 2000000);
    worst = std::max(worst, ulps(lanes_under_test::exp(x), std::exp(double{x})));
  }
  CHECK(worst <= 1.01);
}

TEST_CASE("exp at its ends") {
  CHECK(lanes_under_test::exp(0.0f) == 1.0f);
  CHECK(lanes_under_test::exp(-INFINITY) == 0.0f);
  CHECK(lanes_under_test::exp(-1e30f) == 0.0f);
  CHECK(lanes_under_test::exp(-86.6f) == 0.0f);
  CHECK(lanes_under_test::exp(88.7f) < INFINITY);
  CHECK(lanes_under_test::exp(89.0f) == INFINITY);
  CHECK(lanes_under_test::exp(INFINITY) == INFINITY);
  CHECK(std::isnan(lanes_under_test::exp(NAN)));
}

TEST_CASE("exp_of_negative stays within 1.5e-6, and has a least value") {
  const auto at = [](float x) {
    float lanes[kLanes];
    exp_of_negative(F32x8::set1(x)).store(lanes);
    return lanes[0];
  };
  double worst = 0;
  for (int i = 0; i <= 1000000; ++i) {
    const float x = static_cast<float>(i) * (-86.0f / 1000000);
    worst = std::max(worst, std::fabs(at(x) / std::exp(double{x}) - 1));
  }
  CHECK(worst <= 1.5e-6);
  CHECK(at(0) == 1);
  for (float x : {-86.1f, -1e30f, -INFINITY, NAN}) CHECK(at(x) == at(-86.0f));
}

TEST_CASE("sums add in the fixed order, maxima take all lanes") {
  const Floats x = {1e8f, 1, -1e8f, 2, 3e-3f, 1e8f, 5, -1e8f};
  const F32x8 lanes = F32x8::load(x.data());
  CHECK(sum(lanes) == ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])));
  for (int i = 0; i < 8; ++i) {
    Floats y(8, -1);
    y[i] = 7;
    CHECK(max_lane(F32x8::load(y.data())) == 7);
  }
}

TEST_CASE("transpose swaps lanes and rows") {
  F32x8 rows[8];
  for (int i = 0; i < 8; ++i) {
    float x[8];
    for (int j = 0; j < 8; ++j) x[j] = static_cast<float>(10 * i + j);
    rows[i] = F32x8::load(x);
  }
  transpose(rows);
  for (int i = 0; i < 8; ++i) {
    float x[8];
    rows[i].store(x);
    for (int j = 0; j < 8; ++j) CHECK(x[j] == static_cast<float>(10 * j + i));
  }
}

TEST_CASE("all halves and bfloats convert as the scalar functions do") {
  int n_wrong = 0;
  for (int bits = 0; bits < 65536; bits += 8) {
    uint16_t x[8];
    for (int i = 0; i < 8; ++i) x[i] = static_cast<uint16_t>(bits + i);
    float f16[8], bf16[8];
    F32x8::load_f16(x).store(f16);
    F32x8::load_bf16(x).store(bf16);
    for (int i = 0; i < 8; ++i) {
      const float a = f16_to_f32(x[i]), b = bf16_to_f32(x[i]);
      n_wrong += std::isnan(a) ? !std::isnan(f16[i]) : std::memcmp(&a, &f16[i], 4) != 0;
      n_wrong += std::isnan(b) ? !std::isnan(bf16[i]) : std::memcmp(&b, &bf16[i], 4) != 0;
    }
  }
  CHECK(n_wrong == 0);
}

TEST_CASE("parts leave their surroundings alone") {
  const Floats x = {1, 2, 3, 4, 5, 6, 7, 8};
  for (int n = 1; n <= 8; ++n) {
    Floats out(9, -1);
    store_part(load_part(x.data(), n), out.data(), n);
    for (int i = 0; i < 9; ++i) CHECK(out[i] == (i < n ? x[i] : -1));
  }
}
