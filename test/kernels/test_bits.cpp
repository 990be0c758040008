// The bits that the family "cpu" gives on every machine and with every compiler, as hashes of one run of each operator.
// A hash that changes means that stored segments no longer equal fresh ones: the numerics revision (design section 4)
// has to be raised with it.
#include "test/kernels/support.h"

using namespace sala;

// FNV-1a over the bytes, little-endian machines only.
static uint64_t hash_of(const Floats& x) {
  uint64_t hash = 0xCBF29CE484222325u;
  const auto* bytes = reinterpret_cast<const uint8_t*>(x.data());
  for (size_t i = 0; i < x.size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 0x100000001B3u;
  return hash;
}

template <class Run>
static void check(uint64_t expected, Run run) {
  Stream stream(2);
  for (const Ops* ops : tables_under_test()) {
    if (ops == backends().front()) continue;
    CAPTURE(std::string(ops->name));
    CHECK(hash_of(run(*ops, stream)) == expected);
  }
}

TEST_CASE("norms and elementwise") {
  Random random(1);
  const Floats x = random.numbers(3 * 100, 30), y = random.numbers(3 * 100), weight = random.numbers(100);
  check(0xD2224C71F329F958, [&](const Ops& ops, Stream& stream) {
    Floats normed(300), closed = y, added = x, identity(100 * 100);
    for (int i = 0; i < 100; ++i) identity[101 * i] = 1;
    const Matrix one = pack_dense(MatrixForm::f32, identity.data(), 100, 100);
    ops.rms_norm({x.data(), weight.data(), normed.data(), 3, 100, 1e-6f}, stream);
    Floats gated = swiglu(ops, stream, x, y);
    ops.sigmoid_gate({closed.data(), x.data(), 3, 100}, stream);
    MatmulArgs add{};
    add.weight = &one;
    add.x = y.data();
    add.out = added.data();
    add.out_stride = 100;
    add.n_tokens = 3;
    add.add_scale = 0.3f;
    ops.matmul(add, stream);
    for (const Floats* part : {&gated, &closed, &added}) append(normed, *part);
    return normed;
  });
}

TEST_CASE("rotation") {
  Random random(2);
  const Floats x = random.numbers(100 * 2 * 64);
  check(0x8C9248BB4D1CC9E9, [&](const Ops& ops, Stream& stream) {
    Floats cos(100 * 32), sin = cos, rotated = x;
    ops.rope_table({1048000, 100, 64, 1e6f, cos.data(), sin.data()}, stream);
    ops.rope({rotated.data(), cos.data(), sin.data(), 100, 2, 64}, stream);
    append(rotated, cos);
    append(rotated, sin);
    return rotated;
  });
}

TEST_CASE("lightning_attn") {
  Random random(3);
  const Floats q = random.numbers(100 * 4 * 64), k = random.numbers(100 * 2 * 64), v = random.numbers(100 * 2 * 64);
  const Floats log_decay = {-0.8408964f, -0.25f, -0.015625f, -0.00390625f};
  check(0x8057E506FB14C068, [&](const Ops& ops, Stream& stream) {
    Floats s(4 * 64 * 64), k_rows(2 * 64 * 64), v_rows = k_rows, out(q.size());
    LightningState state{s.data(), k_rows.data(), v_rows.data(), 0};
    ops.lightning_attn({q.data(), k.data(), v.data(), log_decay.data(), &state, out.data(), 100, 4, 2, 64, 0.125f},
                       stream);
    append(out, s);
    return out;
  });
}

TEST_CASE("attention and selection") {
  Random random(4);
  constexpr int kRows = 300, kHeads = 4, kTokens = 20, kDim = 64;
  std::vector<int8_t> k8(kRows * kDim), v8 = k8;
  for (size_t i = 0; i < k8.size(); ++i) {
    k8[i] = static_cast<int8_t>(random.below(255) - 127);
    v8[i] = static_cast<int8_t>(random.below(255) - 127);
  }
  Floats scales = random.numbers(kRows, 0.005f);
  for (float& x : scales) x += 0.02f;
  const Floats keys = random.numbers(kRows * kDim), q = random.numbers(kTokens * kHeads * kDim);
  const Floats q_scale(kTokens, 0.125f);
  std::vector<KvTile> tiles;
  for (int row = 0; row < kRows; row += kKvTile) {
    tiles.push_back({k8.data() + row * kDim, v8.data() + row * kDim, scales.data() + row, scales.data() + row,
                     kRows * kDim, kRows, std::min(kKvTile, kRows - row), row == 0 ? 5 : 0, row});
  }
  check(0x96993FB67655CFFB, [&](const Ops& ops, Stream& stream) {
    Floats out(q.size());
    ops.sparse_attn({q.data(), q_scale.data(), tiles.data(), static_cast<int>(tiles.size()), nullptr, 0,
                     kRows - kTokens, out.data(), kTokens, kHeads, 1, kDim},
                    stream);
    return out;
  });
  check(0xB0E0A6ED5138D231, [&](const Ops& ops, Stream& stream) {
    constexpr int kWindows = (kRows - 32) / 16 + 1;
    Floats windows(kWindows * kDim), scores(kTokens * 2);
    ops.compress_keys(
        {keys.data(), kRows * kDim, kRows, 1, kDim, 32, 16, 0, kWindows, windows.data(), kWindows * kDim}, stream);
    const int32_t begin[] = {0, 7}, end[] = {9, kWindows};
    const Floats k1 = turned(windows, 1, kWindows, kDim);
    ops.block_scores({q.data(), q_scale.data(), k1.data(), nullptr, turned_stride(kWindows, kDim), 0, kWindows, 0, nullptr,
                      nullptr, begin, end, 2, scores.data(), kTokens, kHeads, 1, kDim},
                     stream);
    append(windows, scores);
    return windows;
  });
  // The choice of blocks, of which some are close: keys of a few kinds, a step apart.
  constexpr int kBlocks = 296;
  constexpr int kCoarseDim = kDim / 16 * 8;
  std::vector<int8_t> window_keys(kBlocks * kBlockSlots * kDim);
  for (int j = 0; j < kBlocks * kBlockSlots; ++j) {
    for (int c = 0; c < kDim; ++c) window_keys[size_t(j) * kDim + c] = static_cast<int8_t>(k8[j % 37 * kDim + c] ^ (random.below(40) == 0));
  }
  const Floats window_scales(kBlocks * kBlockSlots, 0.01f);
  const Floats basis = random.numbers(size_t(kDim) * kCoarseDim, 0.2f), mean = random.numbers(kDim, 0.1f);
  std::vector<BlockWindows> windows;
  for (int b = 0; b < kBlocks; ++b) windows.push_back({window_keys.data() + b * kBlockSlots * kDim, window_scales.data() + b * kBlockSlots, kBlockSlots, b > 0});
  check(0x31F3B3E94FC3BFCF, [&](const Ops& ops, Stream& stream) {
    Aligned<uint8_t> keys(n_coarse_slots(kBlocks) * kCoarseDim);
    Floats scales(n_coarse_slots(kBlocks));
    const CoarseKeysArgs coarse{windows.data(), basis.data(), mean.data(), keys.data(), scales.data(), kBlocks, 1, kDim, kCoarseDim};
    ops.coarse_keys(coarse, stream);
    constexpr int kSelected = 8;
    std::vector<int32_t> selected(kTokens * kSelected);
    Floats memory(select_blocks_memory(kTokens, kHeads, kBlocks));
    ops.select_blocks({q.data(), q_scale.data(), windows.data(), coarse, kBlocks, selected.data(), kSelected, memory.data(), kTokens, kHeads, 1, kDim},
                      stream);
    append(scales, Floats(keys.begin(), keys.end()));
    append(scales, Floats(selected.begin(), selected.end()));
    return scales;
  });
  check(0xD4D6A0C21FE260E3, [&](const Ops& ops, Stream& stream) {
    const ReadSpan span{k8.data(), scales.data(), kRows};
    Floats max(kTokens), sum(kTokens);
    ops.read_mass({q.data(), &span, max.data(), sum.data(), kTokens, 1, kDim}, stream);
    append(max, sum);
    return max;
  });
}
