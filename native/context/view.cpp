#include "native/context/view.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace sala {

View::View(const ModelConfig& config, std::vector<ViewSegment> segments, std::optional<int> dense_scope_tokens,
           std::function<SegmentImage(size_t)> fetch)
    : config_(config), segments_(std::move(segments)), fetch_(std::move(fetch)),
      tiles_(config.n_sparse_layers()), scoring_(config.n_sparse_layers()) {
  images_.reserve(segments_.size());
  for (const ViewSegment& segment : segments_) {
    n_tokens_ += segment.layout.n_tokens;
    n_visible_tokens_ += segment.layout.n_tokens - std::min(segment.n_hidden, segment.layout.n_tokens);
    n_blocks_ += segment.layout.n_blocks();
  }
  selects_blocks_ = config.sparse_config && dense_scope_tokens && n_tokens_ > *dense_scope_tokens;
}

bool View::fetch_some() {
  for (size_t n_bytes = 0; images_.size() < segments_.size() && n_bytes < kFetchBytes;) {
    n_bytes += segments_[images_.size()].layout.image_bytes();
    images_.push_back(fetch_(images_.size()));
  }
  if (images_.size() < segments_.size()) return false;
  fetch_ = nullptr;
  return true;
}

const std::vector<KvTile>& View::tiles(int sparse_layer) const {
  std::vector<KvTile>& tiles = tiles_[sparse_layer];
  if (!tiles.empty()) return tiles;
  CHECK(images_.size() == segments_.size());
  tiles.reserve(n_blocks_);
  for (size_t i = 0; i < segments_.size(); ++i) {
    const ViewSegment& segment = segments_[i];
    const SegmentKv kv(segment.layout, images_[i]);
    for (int block = 0; block < segment.layout.n_blocks(); ++block) tiles.push_back(kv.tile(sparse_layer, block, segment.n_hidden));
  }
  return tiles;
}

const View::Scoring& View::scoring(int sparse_layer) const {
  std::unique_ptr<Scoring>& ready = scoring_[sparse_layer];
  if (ready) return *ready;
  CHECK(images_.size() == segments_.size());
  const bool is_int8 = !segments_.empty() && segments_[0].layout.form == KvForm::int8;
  ready = is_int8 ? std::make_unique<Scoring>(stored8(sparse_layer)) : std::make_unique<Scoring>(floats(sparse_layer));
  return *ready;
}

View::Stored8 View::stored8(int sparse_layer) const {
  CHECK(config_.sparse_config->block_size == kBlockSlots * config_.sparse_config->kernel_stride);
  const int d = config_.head_dim, n_heads = config_.num_key_value_heads;
  const int64_t n_slots = n_block_slots(n_blocks_);
  Stored8 stored;
  stored.keys = Aligned<int8_t>(size_t(n_heads) * n_slots * d);
  stored.scales = Aligned<float>::uninitialized(size_t(n_heads) * n_slots);
  std::fill(stored.scales.begin(), stored.scales.end(), std::numeric_limits<float>::quiet_NaN());  // where there is no window
  stored.continued.reserve(n_blocks_);
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentKv kv(segments_[i].layout, images_[i]);
    const int64_t first_block = int64_t(stored.continued.size());
    for (int block = 0; block < segments_[i].layout.n_blocks(); ++block) stored.continued.push_back(block > 0);
    for (int g = 0; g < n_heads; ++g) {
      const ReadSpan windows = kv.compressed_keys(sparse_layer, g);
      int8_t* keys = stored.keys.data() + g * n_slots * d;
      for (int j = 0; j < windows.n_rows; ++j) {
        const int64_t block = first_block + j / kBlockSlots;
        const int8_t* from = static_cast<const int8_t*>(windows.k) + int64_t(j) * d;
        int8_t* to = keys + block_key_index(block, j % kBlockSlots, 0, d);
        for (int c = 0; c < d; c += 4) std::memcpy(to + 16 * c, from + c, 4);
        stored.scales[g * n_slots + block_scale_index(block, j % kBlockSlots)] = windows.k_scales[j];
      }
    }
  }
  return stored;
}

View::Floats View::floats(int sparse_layer) const {
  const int d = config_.head_dim, n_heads = config_.num_key_value_heads;
  const int windows_per_block = config_.sparse_config->block_size / config_.sparse_config->kernel_stride;
  Floats scored;
  for (const ViewSegment& segment : segments_) scored.n_windows += segment.layout.n_windows;
  scored.k1 = TurnedKeys(n_heads, d, scored.n_windows);
  std::vector<float> rows;
  int first_window = 0;
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentLayout& layout = segments_[i].layout;
    const SegmentKv kv(layout, images_[i]);
    rows.resize(size_t(n_heads) * layout.n_windows * d);
    for (int g = 0; g < n_heads; ++g) {
      std::copy_n(static_cast<const float*>(kv.compressed_keys(sparse_layer, g).k), size_t(layout.n_windows) * d,
                  rows.data() + size_t(g) * layout.n_windows * d);
    }
    scored.k1.put(rows.data(), d, int64_t(layout.n_windows) * d, first_window, layout.n_windows);
    // A window straddles the border of two blocks: it counts for both (windows 4b − 1 … 4b + 3).
    for (int b = 0; b < layout.n_blocks(); ++b) {
      scored.block_begin.push_back(first_window + std::max(0, windows_per_block * b - 1));
      scored.block_end.push_back(first_window + std::min(layout.n_windows, windows_per_block * (b + 1)));
    }
    first_window += layout.n_windows;
  }
  return scored;
}

}  // namespace sala
