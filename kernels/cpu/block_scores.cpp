// A task is one K/V head and some tokens. All logits of its rows with k1 are kept; the maximum and sum come from k2's
// or from them, a tile of 64 windows at a time; then windows become group sums and blocks take their maxima.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kMaxRows = 128;
// Floats of logits that a task may keep, 4 MB.
constexpr int64_t kMaxLogits = 1 << 20;

struct Task {
  const BlockScoresArgs& args;
  int g, first_token, n_tokens;
  int n_per_group;
  float* q;            // [n_rows, head_dim], scaled; rows are token-major
  float* tile_logits;  // [n_rows, 64]
  float* logits;       // [n_rows, logit_stride]
  int64_t logit_stride;
  RunningSoftmax* softmax;  // [n_rows]

  int n_rows() const { return n_tokens * n_per_group; }
  int seen_k1(int t) const { return args.visible_k1 ? args.visible_k1[first_token + t] : args.n_k1; }
  int seen_k2(int t) const { return args.visible_k2 ? args.visible_k2[first_token + t] : args.n_k2; }

  // Logits of all rows with the windows first … first + n_windows − 1 of `keys`, a tile's at most.
  void tile(const float* keys, int first, int n_windows, float* out, int64_t out_stride) {
    const int d = args.head_dim;
    product<false>({q, d, keys + int64_t{first} * d, kTile, out, out_stride, n_rows(), d,
                    (n_windows + kLanes - 1) / kLanes * kLanes});
  }

  // Rows' maxima and sums take in what each sees of this tile. Works on tile_logits and leaves weights there.
  template <class Seen>
  void take_tile(int first, int n_windows, Seen seen) {
    for (int t = 0; t < n_tokens; ++t) {
      const int end = seen(t) - first < n_windows ? seen(t) - first : n_windows;
      if (end <= 0) continue;
      for (int h = 0; h < n_per_group; ++h) {
        const int r = t * n_per_group + h;
        take_logits(tile_logits + r * kTile, 0, end, softmax[r]);
      }
    }
  }

  void run() {
    const int d = args.head_dim;
    int most_k1 = 0, most_k2 = 0;
    for (int t = 0; t < n_tokens; ++t) {
      most_k1 = seen_k1(t) > most_k1 ? seen_k1(t) : most_k1;
      most_k2 = seen_k2(t) > most_k2 ? seen_k2(t) : most_k2;
      const F32x8 scale = F32x8::set1(args.q_scale[first_token + t]);
      const float* source = args.q + (int64_t{first_token + t} * args.n_heads + g * n_per_group) * d;
      for (int i = 0; i < n_per_group * d; i += kLanes) {
        (F32x8::load(source + i) * scale).store(q + int64_t{t} * n_per_group * d + i);
      }
    }
    for (int r = 0; r < n_rows(); ++r) softmax[r] = {};

    for (int first = 0; first < most_k1; first += kTile) {
      const int n = most_k1 - first < kTile ? most_k1 - first : kTile;
      tile(args.k1 + g * args.k1_stride, first, n, logits + first, logit_stride);
      if (args.k2) continue;
      for (int r = 0; r < n_rows(); ++r) {
        std::memcpy(tile_logits + r * kTile, logits + r * logit_stride + first, sizeof(float) * kTile);
      }
      take_tile(first, n, [this](int t) { return seen_k1(t); });
    }
    if (args.k2) {
      for (int first = 0; first < most_k2; first += kTile) {
        const int n = most_k2 - first < kTile ? most_k2 - first : kTile;
        tile(args.k2 + g * args.k2_stride, first, n, tile_logits, kTile);
        take_tile(first, n, [this](int t) { return seen_k2(t); });
      }
    }

    for (int t = 0; t < n_tokens; ++t) {
      float* sums = logits + int64_t{t} * n_per_group * logit_stride;  // of the group, over its first head's logits
      group_sums(t, sums);
      float* scores = args.scores + (int64_t{first_token + t} * args.n_kv_heads + g) * args.n_blocks;
      for (int b = 0; b < args.n_blocks; ++b) {
        const int begin = args.block_begin[b];
        const int end = args.block_end[b] < seen_k1(t) ? args.block_end[b] : seen_k1(t);
        float score = begin < args.block_end[b] ? 0 : -__builtin_inff();  // sums are never below 0
        for (int j = begin; j < end; ++j) score = sums[j] > score ? sums[j] : score;
        scores[b] = score;
      }
    }
  }

  // sums[j] = Σ over the heads of exp(z1 − m) / l, for the windows that token t sees.
  void group_sums(int t, float* sums) {
    const int n = seen_k1(t);
    for (int j = 0; j < n; j += kLanes) {
      F32x8 total = F32x8::zero();
      for (int h = 0; h < n_per_group; ++h) {
        const int r = t * n_per_group + h;
        if (softmax[r].sum == 0) continue;  // no window to normalise by
        const F32x8 weight = exp(F32x8::load(logits + r * logit_stride + j) - F32x8::set1(softmax[r].max));
        total = total + weight / F32x8::set1(softmax[r].sum);
      }
      total.store(sums + j);
    }
  }
};

}  // namespace

void block_scores(const BlockScoresArgs& args, Stream& stream) {
  const int d = args.head_dim;
  CHECK(d % kLanes == 0 && args.n_heads % args.n_kv_heads == 0);
  const int n_per_group = args.n_heads / args.n_kv_heads;
  CHECK(n_per_group <= kMaxRows);
  const int64_t logit_stride = int64_t{(args.n_k1 + kTile - 1) / kTile} * kTile;

  // Tokens of a task: many, so that a tile is read for many rows, but no more logits than stay near, and one task a
  // thread.
  int64_t tokens_per_task = kMaxRows / n_per_group;
  const int64_t fitting = kMaxLogits / (n_per_group * logit_stride + 1);
  const int64_t share = (int64_t{args.n_tokens} * args.n_kv_heads + stream.n_threads() - 1) / stream.n_threads();
  tokens_per_task = fitting < tokens_per_task ? fitting : tokens_per_task;
  tokens_per_task = share < tokens_per_task ? share : tokens_per_task;
  const int task_tokens = tokens_per_task < 1 ? 1 : static_cast<int>(tokens_per_task);
  const int n_parts = (args.n_tokens + task_tokens - 1) / task_tokens;

  stream.parallel_for(n_parts * args.n_kv_heads, 1, [&](int first_task, int last_task) {
    const int64_t task_rows = int64_t{task_tokens} * n_per_group;
    const size_t n_floats = task_rows * (d + kTile + logit_stride);
    float* memory = static_cast<float*>(Stream::scratch(sizeof(float) * n_floats));
    RunningSoftmax softmax[kMaxRows];
    for (int i = first_task; i < last_task; ++i) {
      const int first_token = i / args.n_kv_heads * task_tokens;
      const int n_tokens = args.n_tokens - first_token < task_tokens ? args.n_tokens - first_token : task_tokens;
      float* tile_logits = memory + task_rows * d;
      float* logits = tile_logits + task_rows * kTile;
      Task{args, i % args.n_kv_heads, first_token, n_tokens, n_per_group, memory, tile_logits, logits, logit_stride, softmax}
          .run();
    }
  });
}

}  // namespace sala::SALA_ISA
