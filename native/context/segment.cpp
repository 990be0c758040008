#include "native/context/segment.h"

#include <algorithm>

namespace sala {

namespace {

size_t on_border(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

int n_segment_windows(const SparseConfig& sparse, int n_tokens) {
  const int end = std::max(1, n_tokens - (sparse.kernel_size / 2 - 1));
  return (end + sparse.kernel_stride - 1) / sparse.kernel_stride;
}

SegmentLayout segment_layout(const ModelConfig& config, KvForm form, int n_tokens) {
  SegmentLayout layout;
  layout.form = form;
  layout.n_tokens = n_tokens;
  layout.n_windows = config.sparse_config ? n_segment_windows(*config.sparse_config, n_tokens) : 0;
  layout.n_sparse_layers = config.n_sparse_layers();
  layout.n_kv_heads = config.num_key_value_heads;
  layout.head_dim = config.head_dim;
  place_parts(layout);
  return layout;
}

void place_parts(SegmentLayout& layout) {
  const size_t n_tokens = size_t(layout.n_tokens);
  const size_t row = layout.element_bytes() * size_t(layout.head_dim);
  const size_t scale = layout.form == KvForm::int8 ? sizeof(float) : 0;
  size_t at = on_border(row * n_tokens);
  const auto place = [&](size_t& part, size_t bytes) {
    part = at;
    at += on_border(bytes);
  };
  place(layout.k_scales, scale * n_tokens);
  place(layout.v, row * n_tokens);
  place(layout.v_scales, scale * n_tokens);
  place(layout.k1, row * layout.n_windows);
  place(layout.k1_scales, scale * layout.n_windows);
  layout.run_bytes = at;
}

KvTile SegmentKv::tile(int sparse_layer, int block, int n_hidden) const {
  const uint8_t* head0 = run(sparse_layer, 0);
  const int first = block * kKvTile;
  const size_t row = layout_.element_bytes() * size_t(layout_.head_dim);
  KvTile tile{};
  tile.k = head0 + row * first;
  tile.v = head0 + layout_.v + row * first;
  if (layout_.form == KvForm::int8) {
    tile.k_scales = reinterpret_cast<const float*>(head0 + layout_.k_scales) + first;
    tile.v_scales = reinterpret_cast<const float*>(head0 + layout_.v_scales) + first;
  }
  tile.head_stride = int64_t(layout_.run_bytes / layout_.element_bytes());
  tile.scale_stride = int64_t(layout_.run_bytes / sizeof(float));
  tile.n_rows = std::min(kKvTile, layout_.n_tokens - first);
  tile.first_row = std::clamp(n_hidden - first, 0, tile.n_rows);
  tile.first_position = -1;
  return tile;
}

ReadSpan SegmentKv::compressed_keys(int sparse_layer, int kv_head) const {
  const uint8_t* base = run(sparse_layer, kv_head);
  const float* scales = layout_.form == KvForm::int8 ? reinterpret_cast<const float*>(base + layout_.k1_scales) : nullptr;
  return {base + layout_.k1, scales, layout_.n_windows};
}

ReadSpan SegmentKv::keys(int sparse_layer, int kv_head, int n_skipped) const {
  const uint8_t* base = run(sparse_layer, kv_head);
  const int first = std::min(n_skipped, layout_.n_tokens);
  ReadSpan span{};
  span.k = base + layout_.element_bytes() * size_t(layout_.head_dim) * first;
  span.k_scales = layout_.form == KvForm::int8 ? reinterpret_cast<const float*>(base + layout_.k_scales) + first : nullptr;
  span.n_rows = layout_.n_tokens - first;
  return span;
}

}  // namespace sala
