#include "kernels/error.h"
#include "test/kernels/support.h"

using namespace sala;

TEST_CASE("embed reads every form exactly") {
  for (int hidden_size : {8, 63, 64, 100}) {
    const int vocab_size = 37;  // the last panel is not full
    Random random(hidden_size);
    const size_t n = size_t(vocab_size) * hidden_size;
    const Floats plain = random.numbers(n), scales = random.numbers(vocab_size);
    std::vector<uint16_t> halves(n), bfloats(n);
    std::vector<int8_t> codes(n);
    for (size_t i = 0; i < n; ++i) {
      halves[i] = static_cast<uint16_t>(random.below(0x7C00) | random.below(2) << 15);  // all finite halves
      bfloats[i] = static_cast<uint16_t>(0x3000 + random.below(0x1800));
      codes[i] = static_cast<int8_t>(random.below(256) - 128);
    }
    const std::vector<int32_t> ids = {0, 15, 16, 36, 16, 31, 32};
    const float scale = 12;
    const auto check = [&](const Matrix& table, auto value) {
      CAPTURE(hidden_size);
      CAPTURE(static_cast<int>(table.form));
      Floats expected;
      for (int32_t id : ids) {
        for (int c = 0; c < hidden_size; ++c) expected.push_back(scale * value(id, size_t(id) * hidden_size + c));
      }
      for (const Ops* ops : backends()) {
        CAPTURE(std::string(ops->name));
        Stream stream(2);
        Floats out = poisoned(expected.size());
        ops->embed({&table, ids.data(), out.data(), static_cast<int>(ids.size()), scale}, stream);
        CHECK(same_bits(out, expected));
      }
    };
    check(pack_dense(MatrixForm::f32, plain.data(), vocab_size, hidden_size), [&](int, size_t i) { return plain[i]; });
    check(pack_dense(MatrixForm::f16, halves.data(), vocab_size, hidden_size),
          [&](int, size_t i) { return f16_to_f32(halves[i]); });
    check(pack_dense(MatrixForm::bf16, bfloats.data(), vocab_size, hidden_size),
          [&](int, size_t i) { return bf16_to_f32(bfloats[i]); });
    check(pack_int8(codes.data(), scales.data(), vocab_size, hidden_size),
          [&](int id, size_t i) { return scales[id] * static_cast<float>(codes[i]); });
  }
}

TEST_CASE("embed refuses ids outside the table") {
  const Floats values(64);
  const Matrix table = pack_dense(MatrixForm::f32, values.data(), 8, 8);
  Floats out(8);
  for (const Ops* ops : backends()) {
    for (int32_t id : {-1, 8}) {
      Stream stream(1);
      CHECK_THROWS_AS(ops->embed({&table, &id, out.data(), 1, 1}, stream), EngineError);
    }
  }
}
