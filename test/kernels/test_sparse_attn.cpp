#include "test/kernels/support.h"

using namespace sala;

namespace {

constexpr int kKvHeads = 2;

// Keys and values of a span of tokens, with the same numbers as 8-bit rows and as the floats these stand for.
struct Span {
  int n_rows, head_dim;
  std::vector<int8_t> k8, v8;
  Floats k_scales, v_scales, k, v;  // heads of k and v are as far apart as those of the turned keys
  Floats turned_k;

  Span(int n_rows, int head_dim, uint64_t seed) : n_rows(n_rows), head_dim(head_dim) {
    Random random(seed);
    Floats plain_k;
    for (int g = 0; g < kKvHeads; ++g) {
      for (int i = 0; i < n_rows; ++i) {
        k_scales.push_back(0.01f + 0.01f * std::fabs(random.number()));
        v_scales.push_back(0.01f + 0.01f * std::fabs(random.number()));
        for (int c = 0; c < head_dim; ++c) {
          k8.push_back(static_cast<int8_t>(random.below(255) - 127));
          v8.push_back(static_cast<int8_t>(random.below(255) - 127));
          k.push_back(k_scales.back() * static_cast<float>(k8.back()));
          v.push_back(v_scales.back() * static_cast<float>(v8.back()));
          plain_k.push_back(k.back());
        }
      }
      k.resize((g + 1) * turned_stride(n_rows, head_dim), NAN);
      v.resize(k.size(), NAN);
    }
    turned_k = turned(plain_k, kKvHeads, n_rows, head_dim);
  }

  // Tiles of 64 over the first n rows; those of a sequence's own floats are turned.
  std::vector<KvTile> tiles(bool int8, int n, int64_t first_position, int first_row = 0) const {
    const bool is_turned = !int8 && first_position >= 0;
    std::vector<KvTile> list;
    for (int row = 0; row < n; row += kKvTile) {
      const size_t at = size_t(row) * head_dim;
      KvTile tile{};
      tile.k = int8 ? static_cast<const void*>(k8.data() + at) : (is_turned ? turned_k : k).data() + at;
      tile.v = int8 ? static_cast<const void*>(v8.data() + at) : v.data() + at;
      tile.k_scales = int8 ? k_scales.data() + row : nullptr;
      tile.v_scales = int8 ? v_scales.data() + row : nullptr;
      tile.head_stride = int8 ? int64_t{n_rows} * head_dim : turned_stride(n_rows, head_dim);
      tile.k_turned = is_turned;
      tile.scale_stride = n_rows;
      tile.n_rows = std::min(n - row, kKvTile);
      tile.first_row = std::max(0, std::min(first_row - row, tile.n_rows));
      tile.first_position = first_position < 0 ? -1 : first_position + row;
      list.push_back(tile);
    }
    return list;
  }
};

// A tail of n_tokens after `before` earlier rows of its own sequence, over two segments of which the second hides its
// header.
struct Scene {
  int before, n_tokens, n_heads, head_dim;
  Span first, second, own;
  Floats q, q_scale;

  Scene(int before, int n_tokens, int n_heads, int head_dim)
      : before(before), n_tokens(n_tokens), n_heads(n_heads), head_dim(head_dim), first(100, head_dim, 1),
        second(130, head_dim, 2), own(before + n_tokens, head_dim, 3) {
    Random random(n_tokens);
    q = random.numbers(size_t(n_tokens) * n_heads * head_dim);
    q_scale = random.numbers(n_tokens);
    for (float& x : q_scale) x = (2 + x) / std::sqrt(float(head_dim));
  }

  // Tiles as a call sees them that ends with token `end`.
  std::vector<KvTile> tiles(bool int8, int end) const {
    std::vector<KvTile> list = first.tiles(int8, first.n_rows, -1);
    // Of this one the first tile is all header.
    for (const KvTile& tile : second.tiles(int8, second.n_rows, -1, 70)) list.push_back(tile);
    for (const KvTile& tile : own.tiles(false, before + end, 0)) list.push_back(tile);
    return list;
  }

  // Runs tokens begin … end − 1 in one call. Selections may name any tile of the whole sequence, so with one all tiles
  // are there and causality alone hides the later ones. The last n_own of the tiles come as a list of their own.
  Floats run(const Ops& ops, Stream& stream, bool int8, int begin, int end,
             const std::vector<int32_t>* selected = nullptr, int width = 0, int n_own = 0) const {
    const std::vector<KvTile> list = tiles(int8, selected ? n_tokens : end);
    const size_t row = size_t(n_heads) * head_dim;
    Floats out = poisoned(size_t(end - begin) * row);
    const int n_tiles = static_cast<int>(list.size()) - n_own;
    ops.sparse_attn({q.data() + begin * row, q_scale.data() + begin, list.data(), n_tiles,
                     selected ? selected->data() + size_t(begin) * kKvHeads * width : nullptr, width, before + begin,
                     out.data(), end - begin, n_heads, kKvHeads, head_dim, list.data() + n_tiles, n_own},
                    stream);
    return out;
  }

  Floats run_in_calls(const Ops& ops, Stream& stream, bool int8, const std::vector<int>& calls,
                      const std::vector<int32_t>* selected = nullptr, int width = 0) const {
    Floats out;
    int t = 0;
    for (int n : calls) {
      append(out, run(ops, stream, int8, t, t + n, selected, width));
      t += n;
    }
    return out;
  }
};

std::vector<int> random_calls(int n_tokens, uint64_t seed) {
  Random random(seed);
  std::vector<int> calls;
  for (int t = 0; t < n_tokens; t += calls.back()) calls.push_back(std::min(n_tokens - t, 1 + random.below(40)));
  return calls;
}

void check(int before, int n_tokens, int n_heads, int head_dim) {
  CAPTURE(before);
  CAPTURE(n_tokens);
  CAPTURE(n_heads);
  CAPTURE(head_dim);
  const Scene scene(before, n_tokens, n_heads, head_dim);
  Floats results[2];
  for (bool int8 : {false, true}) {
    CAPTURE(int8);
    const auto run = [&](const Ops& ops, Stream& stream) { return scene.run(ops, stream, int8, 0, n_tokens); };
    results[int8] = check_tables(run, 2e-6);
    Stream stream(2);
    for (const auto& calls : {std::vector<int>(n_tokens, 1), random_calls(n_tokens, 1), random_calls(n_tokens, 2)}) {
      CHECK(same_bits(scene.run_in_calls(*backends().back(), stream, int8, calls), results[int8]));
    }
  }
  CHECK(error_of(results[1], results[0]) <= 2e-6);
}

}  // namespace

TEST_CASE("sparse_attn over all tiles: 8-bit and float rows, any split into calls") {
  for (int n_tokens : {1, 63, 64, 65, 127}) check(0, n_tokens, 4, 16);
  check(37, 40, 14, 64);
  check(64, 30, 6, 24);
  check(1, 20, 32, 128);
  check(0, 150, 2, 32);  // no grouping
}

TEST_CASE("sparse_attn over selected tiles") {
  const int n_tokens = 90, width = 4;
  const Scene scene(20, n_tokens, 14, 64);
  const int n_tiles = static_cast<int>(scene.tiles(false, n_tokens).size());
  Random random(9);
  std::vector<int32_t> selected;
  for (int row = 0; row < n_tokens * kKvHeads; ++row) {
    const int n = random.below(width + 1);
    std::vector<int32_t> list;
    for (int tile = 0; tile < n_tiles && static_cast<int>(list.size()) < n; ++tile) {
      if (random.below(2)) list.push_back(tile);
    }
    list.resize(width, -1);
    selected.insert(selected.end(), list.begin(), list.end());
  }
  for (bool int8 : {false, true}) {
    const auto run = [&](const Ops& ops, Stream& stream) {
      return scene.run(ops, stream, int8, 0, n_tokens, &selected, width);
    };
    const Floats whole = check_tables(run, 2e-6);
    Stream stream(2);
    for (const auto& calls : {std::vector<int>{89, 1}, random_calls(n_tokens, 3)}) {
      CHECK(same_bits(scene.run_in_calls(*backends().back(), stream, int8, calls, &selected, width), whole));
    }
  }
}

TEST_CASE("where tiles are listed makes no difference") {
  const Scene scene(0, 50, 4, 32);
  const int n_tiles = static_cast<int>(scene.tiles(true, 50).size());
  std::vector<int32_t> odd;
  for (int row = 0; row < 50 * kKvHeads; ++row) {
    for (int tile = 1; tile < n_tiles; tile += 2) odd.push_back(tile);
  }
  const int width = n_tiles / 2;
  Stream stream(2);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    const Floats all = scene.run(*ops, stream, true, 0, 50), some = scene.run(*ops, stream, true, 0, 50, &odd, width);
    CHECK(!same_bits(all, some));
    for (int n_own = 1; n_own <= n_tiles; ++n_own) {
      CHECK(same_bits(scene.run(*ops, stream, true, 0, 50, nullptr, 0, n_own), all));
      CHECK(same_bits(scene.run(*ops, stream, true, 0, 50, &odd, width, n_own), some));
    }
  }
}

TEST_CASE("selecting all tiles is selecting none") {
  const Scene scene(0, 50, 4, 32);
  const int n_tiles = static_cast<int>(scene.tiles(true, 50).size());
  std::vector<int32_t> all;
  for (int row = 0; row < 50 * kKvHeads; ++row) {
    for (int tile = 0; tile < n_tiles; ++tile) all.push_back(tile);
    all.push_back(-1);
  }
  Stream stream(2);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    CHECK(same_bits(scene.run(*ops, stream, true, 0, 50, &all, n_tiles + 1), scene.run(*ops, stream, true, 0, 50)));
  }
}

TEST_CASE("a row that sees nothing gives 0; one that sees one key gives its value") {
  const Span span(10, 16, 4);
  std::vector<KvTile> tiles = span.tiles(false, 10, 2);  // positions 2 … 11
  Random random(1);
  const Floats q = random.numbers(4 * 2 * 16, 100), q_scale(4, 1.0f);
  for (const Ops* ops : backends()) {
    CAPTURE(std::string(ops->name));
    Stream stream(2);
    Floats out = poisoned(q.size());
    ops->sparse_attn({q.data(), q_scale.data(), tiles.data(), 1, nullptr, 0, 0, out.data(), 4, 2, 2, 16}, stream);
    CHECK(same_bits(Floats(out.begin(), out.begin() + 64), Floats(64, 0.0f)));
    for (int h = 0; h < 2; ++h) {
      const auto first = span.v.begin() + h * turned_stride(10, 16);
      const Floats value(first, first + 16);
      CHECK(same_bits(Floats(out.begin() + 64 + h * 16, out.begin() + 80 + h * 16), value));
    }
  }
}

TEST_CASE("large logits neither overflow nor lose the maximum") {
  Scene scene(0, 40, 2, 16);
  for (float& x : scene.q) x *= 300;
  const auto run = [&](const Ops& ops, Stream& stream) { return scene.run(ops, stream, true, 0, 40); };
  check_tables(run, 1e-4);  // logits of some thousand carry errors of 1e-4
}
