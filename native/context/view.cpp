#include "native/context/view.h"

#include <algorithm>

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
  ready = std::make_unique<Scoring>();
  const int d = config_.head_dim, n_heads = config_.num_key_value_heads;
  const int windows_per_block = config_.sparse_config->block_size / config_.sparse_config->kernel_stride;
  for (const ViewSegment& segment : segments_) ready->n_windows += segment.layout.n_windows;
  ready->k1 = TurnedKeys(n_heads, d, ready->n_windows);
  std::vector<float> windows;
  int first_window = 0;
  CHECK(images_.size() == segments_.size());
  for (size_t i = 0; i < segments_.size(); ++i) {
    const ViewSegment& segment = segments_[i];
    const int n_windows = segment.layout.n_windows;
    const SegmentKv kv(segment.layout, images_[i]);
    windows.resize(size_t(n_heads) * n_windows * d);
    for (int g = 0; g < n_heads; ++g) kv.compressed_keys(sparse_layer, g, windows.data() + size_t(g) * n_windows * d);
    ready->k1.put(windows.data(), d, int64_t(n_windows) * d, first_window, n_windows);
    // A window straddles the border of two blocks: it counts for both (windows 4b − 1 … 4b + 3).
    for (int b = 0; b < segment.layout.n_blocks(); ++b) {
      ready->block_begin.push_back(first_window + std::max(0, windows_per_block * b - 1));
      ready->block_end.push_back(first_window + std::min(n_windows, windows_per_block * (b + 1)));
    }
    first_window += n_windows;
  }
  return *ready;
}

}  // namespace sala
