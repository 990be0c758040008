// Matrix products and the rounding of their activations. With 8-bit activations every table, the reference included,
// gives the same bits; with fp32 activations the tables of the family "cpu" do.
#include "test/kernels/support.h"

#include <numeric>

using namespace sala;

namespace {

constexpr float kGuard = -123.25f;
constexpr int kGuardColumns = 3;

// ---- weights, kept row-major beside the packed form -----------------------------------------------------------------

struct Weights {
  int n, k;
  std::vector<int> codes;     // [n, k], zero point taken off
  Floats scales;              // [n, k / group_size]
  int group_size;
  std::vector<int32_t> order; // of the columns, or empty
  Matrix matrix;

  // Column k of the packed matrix as a factor of the input: its value and the input column it multiplies.
  double value(int row, int column) const {
    const size_t group = size_t(row) * (k / group_size) + column / group_size;
    return static_cast<float>(codes[size_t(row) * k + column]) * scales[group];
  }
  int input_column(int column) const { return order.empty() ? column : order[column]; }
};

std::vector<int32_t> shuffled(Random& random, int n) {
  std::vector<int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  for (int i = n - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

struct Int4Options {
  bool zeros = false, order = false;
};

Weights int4_weights(int n, int k, int group_size, Int4Options options = {}) {
  Random random(n * 7919 + k + group_size);
  const size_t n_groups = size_t(n) * (k / group_size);
  Weights w{n, k, std::vector<int>(size_t(n) * k), random.numbers(n_groups, 0.1f), group_size, {}, {}};
  std::vector<uint8_t> codes(w.codes.size()), zeros(w.scales.size(), 8);
  if (options.zeros) {
    for (uint8_t& z : zeros) z = uint8_t(random.below(17));
  }
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = uint8_t(random.below(16));
    w.codes[i] = codes[i] - zeros[i / k * (k / group_size) + i % k / group_size];
  }
  if (options.order) w.order = shuffled(random, k);
  w.matrix = pack_int4(codes.data(), w.scales.data(), options.zeros ? zeros.data() : nullptr,
                       options.order ? w.order.data() : nullptr, n, k, group_size);
  return w;
}

Weights int8_weights(int n, int k) {
  Random random(n * 7919 + k);
  Weights w{n, k, std::vector<int>(size_t(n) * k), random.numbers(n, 0.01f), k, {}, {}};
  std::vector<int8_t> codes(w.codes.size());
  for (size_t i = 0; i < codes.size(); ++i) w.codes[i] = codes[i] = int8_t(random.below(256) - 128);
  w.matrix = pack_int8(codes.data(), w.scales.data(), n, k);
  return w;
}

// ---- activations ----------------------------------------------------------------------------------------------------

struct QuantizedRows {
  int n_rows, n_cols, group_size;
  std::vector<int8_t> q;
  Floats scales;
  std::vector<int32_t> sums;
};

QuantizedRows quantized(const Ops& ops, Stream& stream, const Floats& x, int n_cols, int group_size,
                const int32_t* order = nullptr) {
  const int n_rows = static_cast<int>(x.size() / n_cols);
  const size_t n_groups = x.size() / group_size;
  QuantizedRows rows{n_rows,           n_cols, group_size, std::vector<int8_t>(x.size(), -128),
             poisoned(n_groups), std::vector<int32_t>(n_groups, INT32_MIN)};
  ops.quantize_rows({x.data(), n_rows, n_cols, group_size, order, rows.q.data(), rows.scales.data(), rows.sums.data()},
                    stream);
  return rows;
}

MatmulArgs args_for(const QuantizedRows& rows, int first = 0) {
  const int64_t n_groups = rows.n_cols / rows.group_size;
  MatmulArgs args{};
  args.q = rows.q.data() + int64_t(first) * rows.n_cols;
  args.q_scales = rows.scales.data() + first * n_groups;
  args.q_sums = rows.sums.data() + first * n_groups;
  args.q_group_size = rows.group_size;
  args.n_tokens = rows.n_rows - first;
  return args;
}

MatmulArgs args_for(const Floats& x, int n_cols, int first = 0) {
  MatmulArgs args{};
  args.x = x.data() + int64_t(first) * n_cols;
  args.n_tokens = static_cast<int>(x.size() / n_cols) - first;
  return args;
}

// ---- running --------------------------------------------------------------------------------------------------------

// The product, [n_tokens, out_features]; the outputs are poisoned before, and guards beside each row must survive.
Floats product(const Ops& ops, Stream& stream, const Matrix& weight, MatmulArgs args, const float* bias) {
  const int n = weight.out_features, stride = n + kGuardColumns;
  Floats wide = poisoned(size_t(args.n_tokens) * stride);
  for (int t = 0; t < args.n_tokens; ++t) std::fill_n(wide.begin() + size_t(t) * stride + n, kGuardColumns, kGuard);
  args.weight = &weight;
  args.bias = bias;
  args.out = wide.data();
  args.out_stride = stride;
  ops.matmul(args, stream);
  Floats out;
  bool guarded = true;
  for (int t = 0; t < args.n_tokens; ++t) {
    const auto row = wide.begin() + size_t(t) * stride;
    out.insert(out.end(), row, row + n);
    guarded = guarded && std::count(row + n, row + stride, kGuard) == kGuardColumns;
  }
  CHECK(guarded);
  return out;
}

// The same rows one at a time and in two parts: neither may change a bit.
void check_rows_alone(const Floats& together, const Matrix& weight, MatmulArgs args, const float* bias) {
  const Ops& ops = *backends().back();
  Stream stream(2);
  const auto part = [&](int first, int n_tokens) {
    MatmulArgs some = args;
    const int64_t columns = int64_t(first) * weight.in_features;
    if (args.x) {
      some.x += columns;
    } else {
      some.q += columns;
      some.q_scales += columns / args.q_group_size;
      some.q_sums += columns / args.q_group_size;
    }
    some.n_tokens = n_tokens;
    return product(ops, stream, weight, some, bias);
  };
  Floats one_by_one, split = part(0, args.n_tokens / 3);
  for (int t = 0; t < args.n_tokens; ++t) append(one_by_one, part(t, 1));
  append(split, part(args.n_tokens / 3, args.n_tokens - args.n_tokens / 3));
  CHECK(same_bits(one_by_one, together));
  CHECK(same_bits(split, together));
}

void check_q(const Weights& w, int n_tokens, int group_size, bool with_bias = true) {
  CAPTURE(n_tokens);
  CAPTURE(w.n);
  CAPTURE(w.k);
  CAPTURE(group_size);
  Random random(n_tokens + w.k);
  Stream alone(1);
  const QuantizedRows rows = quantized(*backends().front(), alone, random.numbers(size_t(n_tokens) * w.k, 3), w.k, group_size);
  const Floats bias = random.numbers(w.n);
  const MatmulArgs args = args_for(rows);
  const float* b = with_bias ? bias.data() : nullptr;
  const auto run = [&](const Ops& ops, Stream& stream) { return product(ops, stream, w.matrix, args, b); };
  const Floats together = check_tables(run, 0);
  CHECK(same_bits(together, run(*backends().front(), alone)));
  check_rows_alone(together, w.matrix, args, b);
}

void check_x(const Matrix& matrix, int n_tokens) {
  CAPTURE(n_tokens);
  CAPTURE(static_cast<int>(matrix.form));
  CAPTURE(matrix.out_features);
  CAPTURE(matrix.in_features);
  Random random(n_tokens + matrix.in_features);
  const Floats x = random.numbers(size_t(n_tokens) * matrix.in_features, 3), bias = random.numbers(matrix.out_features);
  const MatmulArgs args = args_for(x, matrix.in_features);
  const auto run = [&](const Ops& ops, Stream& stream) { return product(ops, stream, matrix, args, bias.data()); };
  const Floats together = check_tables(run, 1e-6);
  check_rows_alone(together, matrix, args, bias.data());
}

Matrix dense_matrix(MatrixForm form, int n, int k) {
  Random random(n + k);
  if (form == MatrixForm::f32) return pack_dense(form, random.numbers(size_t(n) * k).data(), n, k);
  std::vector<uint16_t> values(size_t(n) * k);
  for (uint16_t& v : values) {
    // Magnitudes of 2^-8 … 2^-1, and some subnormal halves.
    const uint32_t exponent = form == MatrixForm::f16 ? 7 + random.below(8) : 119 + random.below(8);
    const int fraction_bits = form == MatrixForm::f16 ? 10 : 7;
    const uint32_t exponent_bits = random.below(50) ? exponent << fraction_bits : 0;
    v = uint16_t(random.below(2) << 15 | exponent_bits | random.below(1 << fraction_bits));
  }
  return pack_dense(form, values.data(), n, k);
}

}  // namespace

TEST_CASE("the reference multiplies what was packed") {
  Stream stream(1);
  const Ops& ops = *backends().front();
  Random random(5);
  const int n_tokens = 3;
  const auto check = [&](const Weights& w, int group_size) {
    CAPTURE(w.n);
    CAPTURE(w.k);
    const Floats x = random.numbers(size_t(n_tokens) * w.k), bias = random.numbers(w.n);
    const QuantizedRows rows = quantized(ops, stream, x, w.k, group_size, w.order.empty() ? nullptr : w.order.data());
    Floats from_x, from_q;
    for (int t = 0; t < n_tokens; ++t) {
      for (int n = 0; n < w.n; ++n) {
        double sum_x = bias[n], sum_q = bias[n];
        for (int k = 0; k < w.k; ++k) {
          sum_x += w.value(n, k) * x[size_t(t) * w.k + w.input_column(k)];
          sum_q += w.value(n, k) * rows.q[size_t(t) * w.k + k] * rows.scales[(size_t(t) * w.k + k) / group_size];
        }
        from_x.push_back(static_cast<float>(sum_x));
        from_q.push_back(static_cast<float>(sum_q));
      }
    }
    CHECK(error_of(product(ops, stream, w.matrix, args_for(x, w.k), bias.data()), from_x) < 1e-6);
    CHECK(error_of(product(ops, stream, w.matrix, args_for(rows), bias.data()), from_q) < 1e-6);
    // The columns of q are in the weight's order: 8 bits change the product a little, a wrong order altogether.
    CHECK(error_of(from_q, from_x) < 0.02);
  };
  check(int4_weights(17, 192, 64), 64);
  check(int4_weights(40, 96, 24, {.zeros = true}), 24);
  check(int4_weights(16, 256, 32, {.zeros = true, .order = true}), 32);
  check(int8_weights(33, 128), 64);
  check(int8_weights(5, 30), 10);
}

TEST_CASE("int4 weights, 8-bit activations") {
  for (int n_tokens : {1, 2, 5, 6, 7, 8, 63, 65}) {
    for (int out_features : {1, 15, 16, 17, 100}) check_q(int4_weights(out_features, 128, 64), n_tokens, 64);
  }
  for (int group_size : {8, 24, 32, 40, 64, 128}) {
    for (int n_tokens : {1, 3, 4, 13}) {
      check_q(int4_weights(33, 3 * group_size, group_size), n_tokens, group_size);
      check_q(int4_weights(33, 3 * group_size, group_size, {.zeros = true}), n_tokens, group_size, false);
    }
  }
  check_q(int4_weights(1000, 896, 128), 7, 128);
  // More columns, and a larger group, than are unpacked at once.
  check_q(int4_weights(17, 4864, 128, {.zeros = true}), 13, 128);
  check_q(int4_weights(17, 1152, 1152), 9, 1152);
  // More tokens than meet a panel at once.
  check_q(int4_weights(17, 64, 32), 1600, 32);
}

TEST_CASE("int8 weights, 8-bit activations") {
  for (int n_tokens : {1, 2, 5, 6, 7, 8, 63, 65}) {
    for (int out_features : {1, 15, 16, 17, 100}) check_q(int8_weights(out_features, 128), n_tokens, 32);
  }
  // Groups and rows that end inside four columns.
  for (int group_size : {1, 2, 3, 5, 6, 10, 15, 30}) check_q(int8_weights(20, 30), 5, group_size);
  check_q(int8_weights(1000, 896), 3, 128);
  check_q(int8_weights(17, 4864), 6, 4864, false);
}

TEST_CASE("fp32 activations") {
  for (MatrixForm form : {MatrixForm::f32, MatrixForm::f16, MatrixForm::bf16}) {
    for (int n_tokens : {1, 2, 5, 6, 7, 8, 65}) check_x(dense_matrix(form, 17, 64), n_tokens);
    check_x(dense_matrix(form, 100, 257), 3);
    check_x(dense_matrix(form, 1, 1), 2);
    check_x(dense_matrix(form, 15, 4864), 2);
  }
  for (int n_tokens : {1, 2, 5, 6, 7, 8, 63, 65}) {
    check_x(int4_weights(17, 128, 64).matrix, n_tokens);
    check_x(int8_weights(17, 100).matrix, n_tokens);
  }
  check_x(int4_weights(40, 264, 24, {.zeros = true}).matrix, 4);
  check_x(int4_weights(33, 1152, 128, {.zeros = true, .order = true}).matrix, 7);
  check_x(int8_weights(1000, 63).matrix, 2);
  check_x(int8_weights(16, 64).matrix, 780);
}

TEST_CASE("a column order and the permuted columns give the same product") {
  const int n = 20, k = 512, n_tokens = 8;
  const Weights ordered = int4_weights(n, k, 64, {.order = true});
  const Weights plain = int4_weights(n, k, 64);
  std::vector<uint8_t> codes(ordered.codes.size());
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(ordered.codes[i] + 8);
  const Matrix unordered = pack_int4(codes.data(), ordered.scales.data(), nullptr, nullptr, n, k, 64);
  Random random(1);
  const Floats x = random.numbers(size_t(n_tokens) * k);
  Floats permuted = x;
  for (size_t i = 0; i < x.size(); ++i) permuted[i] = x[i / k * k + ordered.order[i % k]];
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(ops->name);
    Stream stream(2);
    CHECK(same_bits(product(*ops, stream, ordered.matrix, args_for(x, k), nullptr),
                    product(*ops, stream, unordered, args_for(permuted, k), nullptr)));
    const QuantizedRows a = quantized(*ops, stream, x, k, 64, ordered.order.data());
    const QuantizedRows b = quantized(*ops, stream, permuted, k, 64);
    CHECK(a.q == b.q);
    CHECK(same_bits(a.scales, b.scales));
    CHECK(a.sums == b.sums);
  }
}

TEST_CASE("sums at their limits are exact") {
  const int n = 17, k = 256;
  const Floats ones(size_t(n) * (k / 128), 1.0f);
  for (int n_tokens : {1, 4, 6, 11}) {
    for (int activation : {127, -127}) {
      const size_t n_groups = size_t(n_tokens) * (k / 128);
      QuantizedRows rows{n_tokens, k, 128, std::vector<int8_t>(size_t(n_tokens) * k, int8_t(activation)),
                 Floats(n_groups, 1.0f), std::vector<int32_t>(n_groups, 128 * activation)};
      const auto check = [&](const Matrix& matrix, int weight) {
        for (const Ops* ops : tables_under_test()) {
          CAPTURE(ops->name);
          CAPTURE(weight);
          CAPTURE(activation);
          Stream stream(1);
          const Floats out = product(*ops, stream, matrix, args_for(rows), nullptr);
          CHECK(out == Floats(size_t(n_tokens) * n, static_cast<float>(k * weight * activation)));
        }
      };
      for (int code : {0, 15}) {
        const std::vector<uint8_t> codes(size_t(n) * k, uint8_t(code));
        check(pack_int4(codes.data(), ones.data(), nullptr, nullptr, n, k, 128), code - 8);
        for (int zero : {0, 16}) {
          const std::vector<uint8_t> zeros(ones.size(), uint8_t(zero));
          check(pack_int4(codes.data(), ones.data(), zeros.data(), nullptr, n, k, 128), code - zero);
        }
      }
      for (int code : {-128, -127, 127}) {
        const std::vector<int8_t> codes(size_t(n) * k, int8_t(code));
        check(pack_int8(codes.data(), ones.data(), n, k), code);
      }
    }
  }
}

TEST_CASE("groups of zeros give zero, not NaN") {
  const Weights w = int4_weights(17, 128, 64);
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(ops->name);
    Stream stream(1);
    for (int n_tokens : {1, 9}) {
      const QuantizedRows rows = quantized(*ops, stream, Floats(size_t(n_tokens) * 128), 128, 64);
      CHECK(rows.scales == Floats(rows.scales.size()));
      CHECK(product(*ops, stream, w.matrix, args_for(rows), nullptr) == Floats(size_t(n_tokens) * 17));
    }
  }
}

TEST_CASE("several products of one call are those of a call each") {
  Random random(11);
  const Weights int4 = int4_weights(100, 128, 64), int8 = int8_weights(33, 128);
  const Matrix dense = dense_matrix(MatrixForm::f16, 17, 128);
  for (int n_tokens : {1, 7, 40}) {
    const Floats x = random.numbers(size_t(n_tokens) * 128);
    for (const Ops* ops : tables_under_test()) {
      CAPTURE(ops->name);
      Stream stream(3);
      const QuantizedRows rows = quantized(*ops, stream, x, 128, 64);
      MatmulArgs products[] = {args_for(rows), args_for(Floats{}, 128), args_for(rows), args_for(x, 128)};
      const Matrix* weights[] = {&int4.matrix, &dense, &int8.matrix, &dense};
      std::vector<Floats> together, alone;
      for (int i = 0; i < 4; ++i) {
        alone.push_back(product(*ops, stream, *weights[i], products[i], nullptr));
        together.push_back(Floats(alone.back().size(), kGuard));
        products[i].weight = weights[i];
        products[i].out = together.back().data();
        products[i].out_stride = weights[i]->out_features;
        products[i].next = i < 3 ? &products[i + 1] : nullptr;
      }
      ops->matmul(products[0], stream);
      for (int i = 0; i < 4; ++i) CHECK(same_bits(together[i], alone[i]));
    }
  }
}

TEST_CASE("a product is added to what is there with one FMA") {
  Random random(12);
  const Weights w = int4_weights(41, 128, 64);
  for (int n_tokens : {1, 5, 40}) {
    const Floats x = random.numbers(size_t(n_tokens) * 128), bias = random.numbers(41), before = random.numbers(size_t(n_tokens) * 41);
    for (const Ops* ops : tables_under_test()) {
      CAPTURE(ops->name);
      Stream stream(2);
      const QuantizedRows rows = quantized(*ops, stream, x, 128, 64);
      Floats expected = product(*ops, stream, w.matrix, args_for(rows), bias.data()), found = before;
      for (size_t i = 0; i < expected.size(); ++i) expected[i] = std::fma(0.7f, expected[i], before[i]);
      MatmulArgs args = args_for(rows);
      args.weight = &w.matrix;
      args.bias = bias.data();
      args.out = found.data();
      args.out_stride = 41;
      args.add_scale = 0.7f;
      ops->matmul(args, stream);
      CHECK(same_bits(found, expected));
    }
  }
}

TEST_CASE("swiglu_matmul is its two products, the gate and the rounding one by one") {
  Random random(13);
  const Weights gate = int4_weights(96, 128, 64), up = int8_weights(96, 128);
  for (int n_tokens : {1, 7, 40}) {
    const Floats x = random.numbers(size_t(n_tokens) * 128), bias = random.numbers(96);
    for (const Ops* ops : tables_under_test()) {
      CAPTURE(ops->name);
      Stream stream(3);
      const QuantizedRows rows = quantized(*ops, stream, x, 128, 64);
      const Floats gate_alone = product(*ops, stream, gate.matrix, args_for(rows), bias.data());
      const Floats up_alone = product(*ops, stream, up.matrix, args_for(rows), nullptr);
      const Floats expected = swiglu(*ops, stream, gate_alone, up_alone);
      for (int group_size : {0, 16, 32, 96}) {
        Floats out = poisoned(expected.size()), scratch = out;
        MatmulArgs args[] = {args_for(rows), args_for(rows)};
        args[0].weight = &gate.matrix;
        args[0].bias = bias.data();
        args[0].out = out.data();
        args[1].weight = &up.matrix;
        args[1].out = scratch.data();
        args[0].out_stride = args[1].out_stride = 96;
        Rounded fused(n_tokens, 96, group_size ? group_size : 96);
        ops->swiglu_matmul({&args[0], &args[1], group_size ? fused.rows8(group_size) : Rows8{}}, stream);
        if (!group_size) CHECK(same_bits(out, expected));
        if (group_size) CHECK(fused == rounded(*ops, stream, expected, 96, group_size));
      }
      MatmulArgs args = args_for(rows);
      args.weight = &gate.matrix;
      Floats out = poisoned(expected.size());
      args.out = out.data();
      args.out_stride = 96;
      Rounded fused(n_tokens, 96, 24);
      CHECK_THROWS_AS(ops->swiglu_matmul({&args, &args, fused.rows8(24)}, stream), EngineError);
    }
  }
}

TEST_CASE("no tokens, and arguments that do not fit") {
  const Weights w = int4_weights(17, 128, 64);
  Stream stream(1);
  for (const Ops* ops : tables_under_test()) {
    CAPTURE(ops->name);
    CHECK(product(*ops, stream, w.matrix, args_for(Floats{}, 128), nullptr).empty());
    CHECK(quantized(*ops, stream, {}, 128, 64).q.empty());

    const QuantizedRows rows = quantized(*ops, stream, Floats(128, 1.0f), 128, 64);
    Floats out(17);
    MatmulArgs args = args_for(rows);
    args.weight = &w.matrix;
    args.out = out.data();
    args.out_stride = 17;
    ops->matmul(args, stream);
    MatmulArgs other_groups = args, both = args, narrow = args;
    other_groups.q_group_size = 32;
    both.x = out.data();
    narrow.out_stride = 16;
    CHECK_THROWS_AS(ops->matmul(other_groups, stream), EngineError);
    CHECK_THROWS_AS(ops->matmul(both, stream), EngineError);
    CHECK_THROWS_AS(ops->matmul(narrow, stream), EngineError);
  }
}

TEST_CASE("quantize_rows") {
  Random random(3);
  Stream alone(1);
  const auto check = [&](const Floats& x, int n_cols, int group_size, const int32_t* order = nullptr) {
    CAPTURE(n_cols);
    CAPTURE(group_size);
    const QuantizedRows expected = quantized(*backends().front(), alone, x, n_cols, group_size, order);
    for (const Ops* ops : tables_under_test()) {
      for (int n_threads : {1, 2}) {
        CAPTURE(ops->name);
        Stream stream(n_threads);
        const QuantizedRows rows = quantized(*ops, stream, x, n_cols, group_size, order);
        CHECK(rows.q == expected.q);
        CHECK(same_bits(rows.scales, expected.scales));
        CHECK(rows.sums == expected.sums);
      }
    }
    return expected;
  };
  for (int group_size : {1, 3, 7, 8, 9, 32, 64, 128}) {
    for (int n_rows : {1, 5, 65}) check(random.numbers(size_t(n_rows) * 3 * group_size, 5), 3 * group_size, group_size);
  }
  check(random.numbers(896 * 9), 896, 128, shuffled(random, 896).data());

  // The largest magnitude becomes ±127, halves go to the even side, and the row comes back within half a step.
  const QuantizedRows ties = check({127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127, 63.5f}, 8, 8);
  CHECK(ties.q == std::vector<int8_t>{127, 0, 2, 2, 0, -2, -127, 64});
  CHECK(ties.sums[0] == 66);
  const Floats x = random.numbers(128 * 4, 2);
  const QuantizedRows rows = check(x, 128, 128);
  for (size_t i = 0; i < x.size(); ++i) {
    const float step = rows.scales[i / 128];
    CHECK(std::fabs(rows.q[i] * step - x[i]) <= step * 0.5001f);
  }

  // Scales that round to zero or far down among the subnormals must not make a ratio infinite or pass 127.
  check({1e-45f, -1e-45f, 0, 0}, 4, 4);
  check({190 * 0x1p-149f, -63 * 0x1p-149f, 0, 5e-44f}, 4, 4);
  check({3e38f, -3.4e38f, 1, 0}, 4, 4);
}
