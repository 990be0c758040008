#include "native/context/view.h"

#include <algorithm>

#include "native/context/coarse_basis.h"
#include "native/platform.h"

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

const View::Scoring& View::scoring(int sparse_layer, const Ops& ops, Stream& stream) const {
  std::unique_ptr<Scoring>& ready = scoring_[sparse_layer];
  if (ready) return *ready;
  CHECK(images_.size() == segments_.size());
  const bool is_int8 = !segments_.empty() && segments_[0].layout.form == KvForm::int8;
  ready = is_int8 ? std::make_unique<Scoring>(stored8(sparse_layer, ops, stream)) : std::make_unique<Scoring>(floats(sparse_layer));
  return *ready;
}

View::Stored8 View::stored8(int sparse_layer, const Ops& ops, Stream& stream) const {
  CHECK(config_.sparse_config->block_size == kBlockSlots * config_.sparse_config->kernel_stride);
  const int d = config_.head_dim, n_heads = config_.num_key_value_heads;
  // Half of the components hold all but some percent of how keys differ (docs/performance.md).
  const int n_dims = std::max(kBlockLanes, d / 2 / kBlockLanes * kBlockLanes);
  const int64_t n_slots = n_coarse_slots(n_blocks_);
  // Each token goes through all of this: 27 MB for a million tokens.
  const size_t n_bytes = Arena::padded(size_t(n_heads) * (n_blocks_ * sizeof(BlockWindows) + n_slots * (n_dims + sizeof(float))), 3);
  Arena arena(n_bytes < kHugePage ? nullptr : huge_page_memory(n_bytes), n_bytes);
  Stored8 stored;
  stored.windows = arena.take<BlockWindows>(size_t(n_heads) * n_blocks_);
  int block = 0;
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentKv kv(segments_[i].layout, images_[i]);
    const int n_blocks = segments_[i].layout.n_blocks();
    for (int g = 0; g < n_heads; ++g) {
      const ReadSpan keys = kv.compressed_keys(sparse_layer, g);
      for (int b = 0; b < n_blocks; ++b) {
        const int first = b * kBlockSlots;
        stored.windows[size_t(g) * n_blocks_ + block + b] = {static_cast<const int8_t*>(keys.k) + int64_t(first) * d, keys.k_scales + first,
                                                             int8_t(std::clamp(keys.n_rows - first, 0, kBlockSlots)), b > 0};
      }
    }
    block += n_blocks;
  }
  if (n_select_candidates(n_blocks_, config_.sparse_config->topk) == n_blocks_) return stored;  // then none is left out by its coarse keys
  stored.basis = Aligned<float>::uninitialized(size_t(n_heads) * d * n_dims);
  stored.mean = Aligned<float>::uninitialized(size_t(n_heads) * d);
  stored.coarse_keys = arena.take<uint8_t>(size_t(n_heads) * n_slots * n_dims);
  stored.coarse_scales = arena.take<float>(size_t(n_heads) * n_slots);
  for (int g = 0; g < n_heads; ++g) {
    coarse_basis(stored.windows.data() + size_t(g) * n_blocks_, n_blocks_, d, n_dims, stored.basis.data() + size_t(g) * d * n_dims,
                 stored.mean.data() + size_t(g) * d);
  }
  stored.coarse = {.windows = stored.windows.data(), .basis = stored.basis.data(), .mean = stored.mean.data(), .keys = stored.coarse_keys.data(),
                   .scales = stored.coarse_scales.data(), .n_blocks = n_blocks_, .n_kv_heads = n_heads, .head_dim = d, .coarse_dim = n_dims};
  ops.coarse_keys(stored.coarse, stream);
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
