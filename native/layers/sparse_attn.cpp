// Sparse attention layer. A token attends to the scope's blocks in view and to its own sequence up to itself; which blocks, where
// there are more than is dense, is decided per token and K/V head: within the sequence as InfLLM-V2 does (exact mode,
// sala-architecture 3.6 – 3.11), in the scope by the rules of design section 4.
#include <algorithm>
#include <cmath>
#include <limits>

#include "native/layers/layers.h"
#include "native/layers/linear.h"

namespace sala {

namespace {

// Values [n, n_heads, head_dim] → the sequence's own, from row `first` on.
void append_values(const float* rows, int n, int n_heads, int d, OwnKv& own, int first) {
  for (int i = 0; i < n; ++i) {
    for (int g = 0; g < n_heads; ++g) {
      std::copy_n(rows + (size_t(i) * n_heads + g) * d, d, own.v.data() + g * own.k.head_stride() + int64_t(first + i) * d);
    }
  }
}

const float* copy_of(const float* from, size_t n, Workspace::Frame& memory) {
  float* copy = memory.take<float>(n);
  std::copy_n(from, n, copy);
  return copy;
}

// Windows that lie wholly within n tokens.
int n_complete_windows(int n, int kernel, int stride) { return n < kernel ? 0 : (n - kernel) / stride + 1; }

// Compressed keys of a sparse layer: the pooled (mean) keys of the windows that became complete between n_past and n tokens.
void extend_compressed(const Model& model, Workspace::Frame& memory, const TurnedKeys& k, int n_past, int n, int kernel,
                       int stride, TurnedKeys& out) {
  const int n_heads = model.config.num_key_value_heads, d = model.config.head_dim;
  const int first = n_complete_windows(n_past, kernel, stride), n_windows = n_complete_windows(n, kernel, stride) - first;
  if (n_windows == 0) return;
  // The rows that they are of, row by row.
  const int first_row = first * stride, n_rows = (n_windows - 1) * stride + kernel;
  float* rows = memory.take<float>(size_t(n_heads) * n_rows * d);
  float* windows = memory.take<float>(size_t(n_heads) * n_windows * d);
  for (int g = 0; g < n_heads; ++g) k.get(g, first_row, n_rows, rows + size_t(g) * n_rows * d);
  model.ops.compress_keys({.k = rows, .head_stride = int64_t(n_rows) * d, .n_rows = n_rows, .n_kv_heads = n_heads, .head_dim = d,
                           .kernel = kernel, .stride = stride, .first_window = 0, .n_windows = n_windows, .out = windows,
                           .out_stride = int64_t(n_windows) * d},
                          model.stream);
  out.put(windows, d, int64_t(n_windows) * d, first, n_windows);
}

// Exact mode: [n, heads, width] block ids of the sequence for tokens n_past … n_past + n − 1.
SelectedBlocks select_in_sequence(const Model& model, Workspace::Frame& memory, const float* q, const float* q_scale,
                                  const OwnKv& own, int n_past, int n) {
  const ModelConfig& config = model.config;
  const SparseConfig& sparse = *config.sparse_config;
  const int length = n_past + n, n_blocks = (length + sparse.block_size - 1) / sparse.block_size;
  const int windows_per_block = sparse.block_size / sparse.kernel_stride, n_heads = config.num_key_value_heads;
  const int n_k1 = n_complete_windows(length, sparse.kernel_size, sparse.kernel_stride);
  const int n_k2 = n_complete_windows(length, 4 * sparse.kernel_size, 4 * sparse.kernel_stride);
  std::vector<int32_t> visible_k1(n), visible_k2(n), begin(n_blocks), end(n_blocks);
  for (int i = 0; i < n; ++i) {
    visible_k1[i] = n_complete_windows(n_past + i + 1, sparse.kernel_size, sparse.kernel_stride);
    visible_k2[i] = n_complete_windows(n_past + i + 1, 4 * sparse.kernel_size, 4 * sparse.kernel_stride);
  }
  for (int b = 0; b < n_blocks; ++b) {
    begin[b] = std::min(n_k1, std::max(0, windows_per_block * b - 1));
    end[b] = std::max(begin[b], std::min(n_k1, windows_per_block * (b + 1)));
  }
  float* scores = memory.take<float>(size_t(n) * n_heads * n_blocks);
  model.ops.block_scores({.q = q, .q_scale = q_scale, .k1 = own.k1.data(), .k2 = own.k2.data(),
                          .k1_stride = own.k1.head_stride(), .k2_stride = own.k2.head_stride(), .n_k1 = n_k1, .n_k2 = n_k2,
                          .visible_k1 = visible_k1.data(), .visible_k2 = visible_k2.data(), .block_begin = begin.data(),
                          .block_end = end.data(), .n_blocks = n_blocks, .scores = scores, .n_tokens = n,
                          .n_heads = config.num_attention_heads, .n_kv_heads = n_heads, .head_dim = config.head_dim},
                         model.stream);

  // The first blocks and the local window are always taken; blocks after the query's own do not exist for it.
  SelectedBlocks selected{0, sparse.topk + sparse.window_size / sparse.block_size, {}};
  std::vector<int32_t> n_valid(size_t(n) * n_heads);
  for (int i = 0; i < n; ++i) {
    const int own_block = (n_past + i) / sparse.block_size;
    const int local = std::max(0, own_block - sparse.window_size / sparse.block_size);
    for (int g = 0; g < n_heads; ++g) {
      const size_t row = size_t(i) * n_heads + g;
      float* score = scores + row * n_blocks;
      const float forced = std::numeric_limits<float>::infinity();
      std::fill_n(score, std::min(sparse.init_blocks, own_block + 1), forced);
      std::fill(score + local, score + own_block + 1, forced);
      n_valid[row] = own_block + 1;
    }
  }
  selected.ids.resize(size_t(n) * n_heads * selected.width);
  model.ops.topk_blocks({scores, n_valid.data(), selected.ids.data(), n * n_heads, n_blocks, selected.width}, model.stream);
  return selected;
}

// Composed context: [n, heads, min(topk, blocks)] block ids of the scope, counted through its segments.
SelectedBlocks select_in_scope(const Model& model, Workspace::Frame& memory, const float* q, const float* q_scale, const View& view, int sparse_layer, int n) {
  const ModelConfig& config = model.config;
  const int n_heads = config.num_attention_heads, n_kv_heads = config.num_key_value_heads, n_blocks = view.n_blocks();
  SelectedBlocks selected{0, std::min(config.sparse_config->topk, n_blocks), {}};
  selected.ids.resize(size_t(n) * n_kv_heads * selected.width);
  const View::Scoring& scoring = view.scoring(sparse_layer, model.ops, model.stream);
  if (const auto* stored = std::get_if<View::Stored8>(&scoring)) {
    model.ops.select_blocks({.q = q, .q_scale = q_scale, .windows = stored->windows.data(),
                             .coarse = stored->coarse, .n_blocks = n_blocks, .selected = selected.ids.data(),
                             .k = selected.width, .memory = memory.take<float>(select_blocks_memory(n, n_heads, n_blocks)),
                             .n_tokens = n, .n_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = config.head_dim},
                            model.stream);
    return selected;
  }
  const View::Floats& floats = std::get<View::Floats>(scoring);
  float* scores = memory.take<float>(size_t(n) * n_kv_heads * n_blocks);
  model.ops.block_scores({.q = q, .q_scale = q_scale, .k1 = floats.k1.data(), .k2 = nullptr,
                          .k1_stride = floats.k1.head_stride(), .k2_stride = 0, .n_k1 = floats.n_windows, .n_k2 = 0,
                          .visible_k1 = nullptr, .visible_k2 = nullptr, .block_begin = floats.block_begin.data(),
                          .block_end = floats.block_end.data(), .n_blocks = n_blocks, .scores = scores, .n_tokens = n,
                          .n_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = config.head_dim},
                         model.stream);
  model.ops.topk_blocks({scores, nullptr, selected.ids.data(), n * n_kv_heads, n_blocks, selected.width}, model.stream);
  return selected;
}

// Tiles of a sequence's own rows, in order.
std::vector<KvTile> own_tiles(const OwnKv& own, int d, int length) {
  std::vector<KvTile> tiles;
  tiles.reserve((length + kKvTile - 1) / kKvTile);
  for (int first = 0; first < length; first += kKvTile) {
    KvTile tile{};
    tile.k = own.k.data() + size_t(first) * d;
    tile.v = own.v.data() + size_t(first) * d;
    tile.head_stride = own.k.head_stride();
    tile.k_turned = true;
    tile.n_rows = std::min(kKvTile, length - first);
    tile.first_position = first;
    tiles.push_back(tile);
  }
  return tiles;
}

// The scope's selected blocks, whose tiles they are, and after them all n_own tiles of the sequence (those after a token are skipped by
// their positions).
SelectedBlocks with_own_tiles(const SelectedBlocks& blocks, int n_view_tiles, int n_own) {
  SelectedBlocks tiles{blocks.layer, blocks.width + n_own, {}};
  const size_t n_lists = blocks.ids.size() / blocks.width;
  tiles.ids.resize(n_lists * tiles.width, -1);
  for (size_t list = 0; list < n_lists; ++list) {
    const int32_t* id = blocks.ids.data() + list * blocks.width;
    int32_t* to = tiles.ids.data() + list * tiles.width;
    for (int i = 0; i < blocks.width && id[i] >= 0; ++i) *to++ = id[i];
    for (int i = 0; i < n_own; ++i) *to++ = n_view_tiles + i;
  }
  return tiles;
}

}  // namespace

void sparse_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights) {
  const Model& model = forward.model_;
  const ModelConfig& config = model.config;
  const int n_rows = forward.n_rows_, d = config.head_dim, n_kv_heads = config.num_key_value_heads;
  const int q_size = config.num_attention_heads * d, kv_size = n_kv_heads * d;
  float* q = memory.take<float>(size_t(n_rows) * q_size);
  float* k = memory.take<float>(size_t(n_rows) * kv_size);
  float* v = memory.take<float>(size_t(n_rows) * kv_size);
  float* gate = memory.take<float>(config.attn_use_output_gate ? size_t(n_rows) * q_size : 0);
  float* o = memory.take<float>(size_t(n_rows) * q_size);
  float* q_scale = memory.take<float>(n_rows);
  const float *q_scored = q, *k_scored = k;  // what blocks are selected by

  LinearInput input = config.attn_use_output_gate
                          ? LinearInput(model, memory, n_rows, config.hidden_size, {&weights.q_proj, &weights.k_proj, &weights.v_proj, &weights.o_gate})
                          : LinearInput(model, memory, n_rows, config.hidden_size, {&weights.q_proj, &weights.k_proj, &weights.v_proj});
  model.ops.rms_norm({.x = forward.h_.data(), .weight = weights.input_layernorm.data(), .out = input.x(), .n_tokens = n_rows,
                      .hidden_size = config.hidden_size, .eps = config.rms_norm_eps, .rows8 = input.rows8()},
                     model.stream);
  if (config.attn_use_output_gate) input.apply({{weights.q_proj, q}, {weights.k_proj, k}, {weights.v_proj, v}, {weights.o_gate, gate}});
  else input.apply({{weights.q_proj, q}, {weights.k_proj, k}, {weights.v_proj, v}});
  if (config.attn_use_rope) {
    if (config.sparse_config && config.sparse_config->use_nope) {
      q_scored = copy_of(q, size_t(n_rows) * q_size, memory);
      k_scored = copy_of(k, size_t(n_rows) * kv_size, memory);
    }
    model.ops.rope({q, forward.sparse_cos_.data(), forward.sparse_sin_.data(), n_rows, config.num_attention_heads, d}, model.stream);
    model.ops.rope({k, forward.sparse_cos_.data(), forward.sparse_sin_.data(), n_rows, n_kv_heads, d}, model.stream);
  }

  for (size_t part = 0; part < forward.parts_.size(); ++part) {
    Workspace::Frame part_memory(model.workspace);
    Sequence& sequence = *forward.parts_[part].sequence;
    OwnKv& own = sequence.kv(forward.sparse_layer_);
    const View* view = forward.parts_[part].view;
    const int first = forward.first_row_[part], n = forward.n_tokens(int(part)), n_past = forward.n_past_[part];
    own.k.put(k + size_t(first) * kv_size, kv_size, d, n_past, n);
    append_values(v + size_t(first) * kv_size, n, n_kv_heads, d, own, n_past);
    const float* part_q = q + size_t(first) * q_size;
    const float* scoring_q = q_scored + size_t(first) * q_size;
    const float root = 1.0f / std::sqrt(float(d));
    for (int i = 0; i < n; ++i) q_scale[first + i] = root * forward.logit_scale(int(part), i);

    const std::vector<KvTile> own_rows = own_tiles(own, d, n_past + n);
    const std::vector<KvTile>* view_rows = nullptr;
    SelectedBlocks blocks{}, tiles{};  // `tiles`: what is attended to, where that is not all
    bool selects = false;
    if (sequence.exact() && config.sparse_config) {
      const SparseConfig& sparse = *config.sparse_config;
      if (!own.k_scored.empty()) own.k_scored.put(k_scored + size_t(first) * kv_size, kv_size, d, n_past, n);
      const TurnedKeys& scored = own.k_scored.empty() ? own.k : own.k_scored;
      extend_compressed(model, part_memory, scored, n_past, n_past + n, sparse.kernel_size, sparse.kernel_stride, own.k1);
      extend_compressed(model, part_memory, scored, n_past, n_past + n, 4 * sparse.kernel_size, 4 * sparse.kernel_stride, own.k2);
      selects = std::max(sequence.final_length, n_past + n) >= sparse.dense_len;
      if (selects) tiles = blocks = select_in_sequence(model, part_memory, scoring_q, q_scale + first, own, n_past, n);
    } else if (view) {
      view_rows = &view->tiles(forward.sparse_layer_);
      selects = view->selects_blocks();
      if (selects) {
        blocks = select_in_scope(model, part_memory, scoring_q, q_scale + first, *view, forward.sparse_layer_, n);
        tiles = with_own_tiles(blocks, int(view_rows->size()), int(own_rows.size()));
      }
    }
    if (selects && part == 0 && forward.selected) {
      blocks.layer = forward.layer_;
      forward.selected->push_back(blocks);
    }
    model.ops.sparse_attn({.q = part_q, .q_scale = q_scale + first, .tiles = view_rows ? view_rows->data() : nullptr,
                           .n_tiles = view_rows ? int(view_rows->size()) : 0,
                           .selected = selects ? tiles.ids.data() : nullptr, .selected_width = tiles.width,
                           .first_position = n_past, .out = o + size_t(first) * q_size, .n_tokens = n,
                           .n_heads = config.num_attention_heads, .n_kv_heads = n_kv_heads, .head_dim = d, .own_tiles = own_rows.data(),
                           .n_own_tiles = int(own_rows.size())},
                          model.stream);
  }
  const LinearInput::Product product{weights.o_proj, forward.h_.data(), config.residual_scale()};
  LinearInput output(model, memory, o, n_rows, q_size);
  if (config.attn_use_output_gate) model.ops.sigmoid_gate({o, gate, n_rows, q_size, output.rows8_for(weights.o_proj)}, model.stream);
  output.apply({product});
}

}  // namespace sala
