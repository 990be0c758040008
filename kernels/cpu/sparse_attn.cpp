// Flash attention over tiles of 64 keys. A task is one K/V head and some query rows (token-major, the heads of the
// group beside each other); it goes through the tiles that any of its tokens wants, converts each once unless it lies
// ready or the task's rows are few, and updates every row's running softmax. A row sees rows begin … end − 1 of a tile and
// nothing else enters its sums, so its bits are its own.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/product8.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

// Rows of a task at most: enough to hide the conversion of a tile, few enough that queries, logits and outputs stay in
// L2.
constexpr int kMaxRows = 128;

// One tile of one K/V head, as the products want it.
struct ReadyTile {
  const float* k;   // [head_dim, 64]
  const float* v;   // [n_rows, head_dim]
  const int32_t* k_words;  // 8-bit keys for few rows, as turn_words leaves them, and values; else null
  const int8_t* v_codes;
  float* k_memory;  // [head_dim, 64], for keys that are not turned or not floats
  float* v_memory;  // [64, head_dim], for values that are not floats
  const float* k_scales;  // [64], or null
  const float* v_scales;
  float k_scales_memory[kTile], v_scales_memory[kTile];

  // few: no call of take() has more than kProduct8Rows query rows.
  void prepare(const KvTile& tile, int g, int head_dim, bool few) {
    const int64_t at = g * tile.head_stride;
    k_words = nullptr;
    if (!tile.k_scales) {
      k = static_cast<const float*>(tile.k) + at;
      if (!tile.k_turned) {
        transpose_tile(k, tile.n_rows, head_dim, k_memory);
        k = k_memory;
      }
      v = static_cast<const float*>(tile.v) + at;
      k_scales = v_scales = nullptr;
      return;
    }
    const int8_t *key_codes = static_cast<const int8_t*>(tile.k) + at, *value_codes = static_cast<const int8_t*>(tile.v) + at;
    if (few) {
      int32_t* words = reinterpret_cast<int32_t*>(k_memory);
      turn_words(key_codes, tile.n_rows, head_dim, words);
      k_words = words;
      v_codes = value_codes;
    } else {
      transpose_tile(key_codes, tile.n_rows, head_dim, k_memory);
      k = k_memory;
      for (int i = 0; i < tile.n_rows * head_dim; i += kLanes) F32x8::load_i8(value_codes + i).store(v_memory + i);
      v = v_memory;
    }
    std::memset(k_scales_memory, 0, sizeof k_scales_memory);
    std::memset(v_scales_memory, 0, sizeof v_scales_memory);
    std::memcpy(k_scales_memory, tile.k_scales + g * tile.scale_stride, sizeof(float) * tile.n_rows);
    std::memcpy(v_scales_memory, tile.v_scales + g * tile.scale_stride, sizeof(float) * tile.n_rows);
    k_scales = k_scales_memory;
    v_scales = v_scales_memory;
  }
};

void multiply(float* x, const float* y, int begin, int end) {
  for (int i = begin / kLanes * kLanes; i < end; i += kLanes) (F32x8::load(x + i) * F32x8::load(y + i)).store(x + i);
}

// Rows of one task: scaled queries, logits of the current tile, sums so far.
struct Rows {
  float* q;        // [n_rows, head_dim]
  float* weights;  // [n_rows, 64]
  float* o;        // [n_rows, head_dim]
  RunningSoftmax* softmax;  // [n_rows]

  // Takes rows begin … end − 1 of the tile in, for query rows `row` … + n_rows. Few rows wait for memory more than for
  // their sums: products fetch what is read next, the keys' product the values, the values' product the keys of tile `next`, and
  // that of 8-bit keys all of that tile, where there is one.
  void take(const ReadyTile& tile, int row, int n_rows, int begin, int end, int head_dim, const KvTile* next, int g) {
    const int first = begin / kLanes * kLanes;
    const int n_columns = (end - first + kLanes - 1) / kLanes * kLanes;
    float* w = weights + row * kTile;
    float* sums = o + int64_t{row} * head_dim;
    const float* queries = q + int64_t{row} * head_dim;
    const int64_t next_at = next ? g * next->head_stride : 0;
    if (tile.k_words) {
      Lines lines[2] = {};
      if (next && next->k_scales) {
        const int64_t n_bytes = int64_t{next->n_rows} * head_dim;
        const int8_t *next_k = static_cast<const int8_t*>(next->k) + next_at, *next_v = static_cast<const int8_t*>(next->v) + next_at;
        lines[0] = {next_k, next_k + n_bytes};
        lines[1] = {next_v, next_v + n_bytes};
      }
      with_rows(n_rows, [&]<int Rows>() {
        keys_product<Rows>(queries, tile.k_words, head_dim, first, first + n_columns, w, lines);
      });
    } else {
      product<false>({queries, head_dim, tile.k + first, kTile, w + first, kTile, n_rows, head_dim, n_columns, 0,
                      tile.v + int64_t{begin} * head_dim, tile.v_scales ? 0 : int64_t{end - begin} * head_dim});
    }
    for (int r = 0; r < n_rows; ++r) {
      if (tile.k_scales) multiply(w + r * kTile, tile.k_scales, begin, end);
      const float factor = take_logits(w + r * kTile, begin, end, softmax[row + r]);
      if (tile.v_scales) multiply(w + r * kTile, tile.v_scales, begin, end);
      if (factor == 1) continue;
      float* x = sums + int64_t{r} * head_dim;
      for (int c = 0; c < head_dim; c += kLanes) (F32x8::load(x + c) * F32x8::set1(factor)).store(x + c);
    }
    if (tile.k_words) {
      with_rows(n_rows, [&]<int Rows>() {
        values_product<Rows>(w + begin, tile.v_codes + int64_t{begin} * head_dim, end - begin, head_dim, sums);
      });
    } else {
      const bool lies_ready = next && next->k_turned;
      product<true>({w + begin, kTile, tile.v + int64_t{begin} * head_dim, head_dim, sums, head_dim, n_rows, end - begin,
                     head_dim, 0, lies_ready ? static_cast<const float*>(next->k) + next_at : nullptr, lies_ready ? int64_t{kTile} * head_dim : 0});
    }
  }
};

// The end of what token t sees of a tile (its begin is first_row).
int visible_end(const SparseAttnArgs& args, const KvTile& tile, int t) {
  if (tile.first_position < 0) return tile.n_rows;
  const int64_t n = args.first_position + t - tile.first_position + 1;
  return n < tile.n_rows ? (n < 0 ? 0 : static_cast<int>(n)) : tile.n_rows;
}

// Query rows row_begin … row_end − 1 of K/V head g. `cursors`: [n_tokens of the task].
void attend(const SparseAttnArgs& args, int g, int row_begin, int row_end, Rows rows, ReadyTile& ready,
            int32_t* cursors) {
  const int d = args.head_dim;
  const int n_per_group = args.n_heads / args.n_kv_heads;
  const int first_token = row_begin / n_per_group, last_token = (row_end - 1) / n_per_group;
  const auto row_of = [&](int t) { return t * n_per_group < row_begin ? 0 : t * n_per_group - row_begin; };
  const auto row_after = [&](int t) {
    return ((t + 1) * n_per_group < row_end ? (t + 1) * n_per_group : row_end) - row_begin;
  };
  // Head-major offset of row r within q and out.
  const auto offset = [&](int r) {
    const int row = row_begin + r;
    return (int64_t{row / n_per_group} * args.n_heads + g * n_per_group + row % n_per_group) * d;
  };
  const int n_tiles = args.n_tiles + args.n_own_tiles;
  const auto tile_at = [&](int index) { return index < args.n_tiles ? args.tiles + index : args.own_tiles + (index - args.n_tiles); };
  // The tile that token t wants next, n_tiles if none.
  const auto wanted = [&](int t) {
    const int cursor = cursors[t - first_token];
    if (!args.selected) return cursor;
    if (cursor == args.selected_width) return n_tiles;
    const int32_t tile = args.selected[(int64_t{t} * args.n_kv_heads + g) * args.selected_width + cursor];
    return tile < 0 ? n_tiles : tile;
  };

  for (int r = 0; r < row_end - row_begin; ++r) {
    const F32x8 scale = F32x8::set1(args.q_scale[(row_begin + r) / n_per_group]);
    const float* q = args.q + offset(r);
    for (int c = 0; c < d; c += kLanes) {
      (F32x8::load(q + c) * scale).store(rows.q + int64_t{r} * d + c);
      F32x8::zero().store(rows.o + int64_t{r} * d + c);
    }
    rows.softmax[r] = {};
  }
  for (int t = first_token; t <= last_token; ++t) cursors[t - first_token] = 0;

  for (;;) {
    int next = n_tiles;
    for (int t = first_token; t <= last_token; ++t) next = wanted(t) < next ? wanted(t) : next;
    if (next == n_tiles) break;
    const KvTile& tile = *tile_at(next);
    // Where tiles are selected, what tells of them lies anywhere in memory: on its way before the rows that it tells of are fetched.
    if (const int at = cursors[0] + 2; args.selected && at < args.selected_width) {
      const int32_t later = args.selected[(int64_t{first_token} * args.n_kv_heads + g) * args.selected_width + at];
      if (later >= 0) __builtin_prefetch(tile_at(later));
    }
    bool is_ready = false;
    // Runs of neighbouring tokens that want this tile and see the same of it.
    for (int t = first_token; t <= last_token;) {
      if (wanted(t) != next) {
        ++t;
        continue;
      }
      const int end = visible_end(args, tile, t);
      const int run_begin = t;
      do ++cursors[t++ - first_token];
      while (t <= last_token && wanted(t) == next && visible_end(args, tile, t) == end);
      if (end <= tile.first_row) continue;
      if (!is_ready) ready.prepare(tile, g, d, row_end - row_begin <= kProduct8Rows);
      is_ready = true;
      const int row = row_of(run_begin);
      const KvTile* after = wanted(run_begin) < n_tiles ? tile_at(wanted(run_begin)) : nullptr;
      rows.take(ready, row, row_after(t - 1) - row, tile.first_row, end, d, after, g);
    }
  }

  for (int r = 0; r < row_end - row_begin; ++r) {
    float* out = args.out + offset(r);
    const float sum = rows.softmax[r].sum;
    for (int c = 0; c < d; c += kLanes) {
      const F32x8 o = F32x8::load(rows.o + int64_t{r} * d + c);
      (sum > 0 ? o / F32x8::set1(sum) : F32x8::zero()).store(out + c);
    }
  }
}

}  // namespace

void sparse_attn(const SparseAttnArgs& args, Stream& stream) {
  const int d = args.head_dim;
  CHECK(d % kLanes == 0 && args.n_heads % args.n_kv_heads == 0);
  if (args.n_tokens == 0) return;
  const int n_per_group = args.n_heads / args.n_kv_heads;
  const int n_rows = args.n_tokens * n_per_group;

  // One task a thread at least, down to two rows: below that the conversion of tiles costs more than it spares.
  int64_t rows_per_task = (int64_t{n_rows} * args.n_kv_heads + stream.n_threads() - 1) / stream.n_threads();
  rows_per_task = rows_per_task < 2 ? 2 : rows_per_task > kMaxRows ? kMaxRows : rows_per_task;
  if (rows_per_task > n_per_group) rows_per_task -= rows_per_task % n_per_group;
  const int task_rows = static_cast<int>(rows_per_task);
  const int n_blocks = (n_rows + task_rows - 1) / task_rows;

  stream.parallel_for(args.n_kv_heads * n_blocks, 1, [&](int first_task, int last_task) {
    const size_t n_floats = size_t{2} * kTile * d + size_t(task_rows) * (2 * d + kTile);
    float* memory = static_cast<float*>(Stream::scratch(sizeof(float) * n_floats));
    ReadyTile tile;
    tile.k_memory = memory;
    tile.v_memory = tile.k_memory + kTile * d;
    RunningSoftmax softmax[kMaxRows];
    int32_t cursors[kMaxRows];
    Rows rows;
    rows.q = tile.v_memory + kTile * d;
    rows.weights = rows.q + int64_t{task_rows} * d;
    rows.o = rows.weights + int64_t{task_rows} * kTile;
    rows.softmax = softmax;
    for (int task = first_task; task < last_task; ++task) {
      // Late tokens see most: they go first, so that the threads end together.
      const int block = n_blocks - 1 - task / args.n_kv_heads;
      const int row_begin = block * task_rows;
      const int row_end = row_begin + task_rows < n_rows ? row_begin + task_rows : n_rows;
      attend(args, task % args.n_kv_heads, row_begin, row_end, rows, tile, cursors);
    }
  });
}

}  // namespace sala::SALA_ISA
