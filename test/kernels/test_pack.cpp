// Where each weight lies in its panel (kernels/matrix.h), and the 16-bit conversions.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/matrix.h"

using namespace sala;

namespace {

constexpr int kRowCounts[] = {1, 15, 16, 17, 33};

size_t padded(int in_features) { return (static_cast<size_t>(in_features) + 7) / 8 * 8; }

template <class T>
std::vector<T> random_values(size_t n, int low, int high) {
  std::mt19937 random(static_cast<unsigned>(n));
  std::uniform_int_distribution<int> distribution(low, high);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(distribution(random));
  return values;
}

template <class T>
void check_dense(MatrixForm form, int n, int k) {
  CAPTURE(n);
  CAPTURE(k);
  const std::vector<T> values = random_values<T>(static_cast<size_t>(n) * k, 1, 10000);
  const Matrix matrix = pack_dense(form, values.data(), n, k);
  CHECK(matrix.form == form);
  REQUIRE(matrix.values.size() == matrix.n_panels() * padded(k) * 16 * sizeof(T));
  const T* panels = reinterpret_cast<const T*>(matrix.values.data());
  for (int row = 0; row < matrix.n_panels() * 16; ++row) {
    for (size_t column = 0; column < padded(k); ++column) {
      const bool inside = row < n && column < static_cast<size_t>(k);
      const T expected = inside ? values[static_cast<size_t>(row) * k + column] : T{0};
      REQUIRE(panels[(row / 16 * padded(k) + column) * 16 + row % 16] == expected);
    }
  }
}

}  // namespace

TEST_CASE("dense panels hold 16 rows of each column, zeros around them") {
  for (int n : kRowCounts) {
    for (int k : {1, 7, 8, 9, 24}) {
      check_dense<float>(MatrixForm::f32, n, k);
      check_dense<uint16_t>(MatrixForm::f16, n, k);
      check_dense<uint16_t>(MatrixForm::bf16, n, k);
    }
  }
}

TEST_CASE("int8 panels hold four columns of 16 rows together") {
  for (int n : kRowCounts) {
    for (int k : {1, 3, 4, 5, 8, 30}) {
      CAPTURE(n);
      CAPTURE(k);
      const auto values = random_values<int8_t>(static_cast<size_t>(n) * k, -127, 127);
      std::vector<float> scales(n);
      std::iota(scales.begin(), scales.end(), 1.0f);
      const Matrix matrix = pack_int8(values.data(), scales.data(), n, k);
      REQUIRE(matrix.values.size() == matrix.n_panels() * padded(k) * 16);
      REQUIRE(matrix.scales.size() == matrix.n_panels() * 16u);
      for (int row = 0; row < matrix.n_panels() * 16; ++row) {
        CHECK(matrix.scales[row] == (row < n ? scales[row] : 0.0f));
        for (size_t column = 0; column < padded(k); ++column) {
          const size_t at = row / 16 * padded(k) * 16 + column / 4 * 64 + row % 16 * 4 + column % 4;
          const bool inside = row < n && column < static_cast<size_t>(k);
          const int8_t expected = inside ? values[static_cast<size_t>(row) * k + column] : int8_t{0};
          REQUIRE(static_cast<int8_t>(matrix.values[at]) == expected);
        }
      }
    }
  }
}

TEST_CASE("int4 panels hold columns 8i + b and 8i + 4 + b in one byte") {
  for (int n : kRowCounts) {
    for (int group_size : {8, 24, 32}) {
      CAPTURE(n);
      CAPTURE(group_size);
      const int k = 3 * group_size;
      const auto codes = random_values<uint8_t>(static_cast<size_t>(n) * k, 0, 15);
      const auto zeros = random_values<uint8_t>(static_cast<size_t>(n) * 3, 0, 16);
      std::vector<float> scales(zeros.size());
      std::iota(scales.begin(), scales.end(), 1.0f);
      std::vector<int32_t> order(k);
      std::iota(order.rbegin(), order.rend(), 0);

      const Matrix matrix = pack_int4(codes.data(), scales.data(), zeros.data(), order.data(), n, k, group_size);
      CHECK(matrix.n_groups() == 3);
      REQUIRE(matrix.values.size() == static_cast<size_t>(matrix.n_panels()) * k * 8);
      REQUIRE(matrix.zeros.size() == matrix.scales.size());
      CHECK(std::equal(order.begin(), order.end(), matrix.column_order.begin(), matrix.column_order.end()));
      for (int row = 0; row < matrix.n_panels() * 16; ++row) {
        for (int column = 0; column < k; ++column) {
          const size_t eight = static_cast<size_t>(row / 16) * k * 8 + column / 8 * 64;
          const size_t at = eight + row % 16 / 8 * 32 + row % 8 * 4 + column % 4;
          const int nibble = column % 8 < 4 ? matrix.values[at] & 15 : matrix.values[at] >> 4;
          REQUIRE(nibble == (row < n ? codes[static_cast<size_t>(row) * k + column] : 0));
        }
        for (int g = 0; g < 3; ++g) {
          const size_t at = (static_cast<size_t>(row / 16) * 3 + g) * 16 + row % 16;
          CHECK(matrix.scales[at] == (row < n ? scales[row * 3 + g] : 0.0f));
          CHECK(matrix.zeros[at] == (row < n ? zeros[row * 3 + g] : 0));
        }
      }

      const Matrix symmetric = pack_int4(codes.data(), scales.data(), nullptr, nullptr, n, k, group_size);
      CHECK(symmetric.zeros.empty());
      CHECK(symmetric.column_order.empty());
      CHECK(std::memcmp(symmetric.values.data(), matrix.values.data(), matrix.values.size()) == 0);
    }
  }
}

TEST_CASE("int4 refuses groups that are no multiples of 8 or do not divide the row, and codes above 15") {
  std::vector<uint8_t> codes(48, 1);
  const std::vector<float> scales(48, 1.0f);
  CHECK_THROWS_AS(pack_int4(codes.data(), scales.data(), nullptr, nullptr, 1, 48, 12), EngineError);
  CHECK_THROWS_AS(pack_int4(codes.data(), scales.data(), nullptr, nullptr, 1, 48, 32), EngineError);
  codes[5] = 16;
  CHECK_THROWS_AS(pack_int4(codes.data(), scales.data(), nullptr, nullptr, 1, 48, 16), EngineError);
}

TEST_CASE("every half and bfloat16 converts exactly") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    CAPTURE(bits);
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    const float half = f16_to_f32(static_cast<uint16_t>(bits));
    if (exponent == 31 && fraction) {
      REQUIRE(std::isnan(half));
    } else {
      const float magnitude = exponent == 31  ? INFINITY
                              : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                              : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
      REQUIRE(std::bit_cast<uint32_t>(half) == std::bit_cast<uint32_t>(sign * magnitude));
    }
    REQUIRE(std::bit_cast<uint32_t>(bf16_to_f32(static_cast<uint16_t>(bits))) == bits << 16);
  }
}

TEST_CASE("words of eight codes are packed as the codes are") {
  for (int n : kRowCounts) {
    for (int group_size : {8, 32}) {
      CAPTURE(n);
      const int k = 3 * group_size, n_groups = 3;
      const std::vector<uint8_t> codes = random_values<uint8_t>(static_cast<size_t>(n) * k, 0, 15);
      const std::vector<uint8_t> zeros = random_values<uint8_t>(static_cast<size_t>(n) * n_groups, 0, 16);
      std::vector<float> scales(zeros.size());
      std::iota(scales.begin(), scales.end(), 1.0f);
      // One byte off, since a file need not align its tensors.
      std::vector<uint8_t> words(1 + static_cast<size_t>(n) * k / 2);
      std::vector<uint8_t> group_zeros(zeros.size());
      std::vector<float> group_scales(zeros.size());
      for (int row = 0; row < n; ++row) {
        for (int column = 0; column < k; ++column) {
          const size_t byte = 4 * (static_cast<size_t>(column / 8) * n + row) + column % 8 / 2;
          words[1 + byte] |= static_cast<uint8_t>(codes[static_cast<size_t>(row) * k + column] << column % 2 * 4);
        }
        for (int g = 0; g < n_groups; ++g) {
          group_zeros[static_cast<size_t>(g) * n + row] = zeros[static_cast<size_t>(row) * n_groups + g];
          group_scales[static_cast<size_t>(g) * n + row] = scales[static_cast<size_t>(row) * n_groups + g];
        }
      }
      for (bool with_zeros : {false, true}) {
        const Matrix expected = pack_int4(codes.data(), scales.data(), with_zeros ? zeros.data() : nullptr, nullptr, n, k, group_size);
        const Matrix found = pack_int4_words(words.data() + 1, group_scales.data(), with_zeros ? group_zeros.data() : nullptr, n, k, group_size);
        const auto same = [](const auto& a, const auto& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };
        CHECK(same(found.values, expected.values));
        CHECK(same(found.scales, expected.scales));
        CHECK(same(found.zeros, expected.zeros));
        CHECK(found.column_order.empty());
        CHECK(found.group_size == group_size);
      }
    }
  }
}
