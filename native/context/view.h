// What an answer attends to beside the prefix and itself: a list of segments, best first, some of them with hidden headers.
// Knows nothing of files, hashes or shares. Immutable but for what it prepares on first use, so forks of a tail share it: images
// are fetched some at a time before the first pass, since checking those of a whole workspace takes seconds.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "native/context/segment.h"
#include "native/context/turned_keys.h"

namespace sala {

struct ViewSegment {
  SegmentLayout layout;
  int n_hidden = 0;  // leading tokens that are left out of attention
};

class View {
 public:
  // dense_scope_tokens: above that many tokens (hidden ones count) blocks are selected; absent: never. fetch(i): the image of
  // segment i; kept until all of them are there.
  View(const ModelConfig& config, std::vector<ViewSegment> segments, std::optional<int> dense_scope_tokens,
       std::function<SegmentImage(size_t)> fetch);

  // Fetches at most kFetchBytes of images (and at least one); true when all are there, which the functions below tiles() need.
  // Throws what `fetch` throws.
  static constexpr size_t kFetchBytes = size_t{8} << 20;
  bool fetch_some();

  int n_tokens() const { return n_tokens_; }                   // hidden ones included
  int n_visible_tokens() const { return n_visible_tokens_; }
  int n_blocks() const { return n_blocks_; }                   // counted through the segments
  bool selects_blocks() const { return selects_blocks_; }

  // One tile a block, in order; a wholly hidden block has first_row = n_rows.
  const std::vector<KvTile>& tiles(int sparse_layer) const;

  // Compressed keys of all segments one behind the other, for selection: as SelectBlocksArgs has them where segments are stored in
  // 8 bit, as BlockScoresArgs otherwise. Prepared on first use, once for all tokens of a request.
  struct Stored8 {
    Aligned<BlockWindows> windows;      // in the images
    CoarseKeysArgs coarse{};            // in the arrays below; of no keys where all blocks are candidates
    Aligned<float> basis, mean;
    Aligned<uint8_t> coarse_keys;
    Aligned<float> coarse_scales;
  };
  struct Floats {
    TurnedKeys k1;
    int n_windows = 0;
    std::vector<int32_t> block_begin, block_end;  // windows that overlap a block, [n_blocks]
  };
  using Scoring = std::variant<Stored8, Floats>;
  const Scoring& scoring(int sparse_layer, const Ops& ops, Stream& stream) const;

 private:
  Stored8 stored8(int sparse_layer, const Ops& ops, Stream& stream) const;
  Floats floats(int sparse_layer) const;

  const ModelConfig& config_;
  std::vector<ViewSegment> segments_;
  std::vector<SegmentImage> images_;  // of the first of them
  std::function<SegmentImage(size_t)> fetch_;
  int n_tokens_ = 0, n_visible_tokens_ = 0, n_blocks_ = 0;
  bool selects_blocks_ = false;
  // By sparse layer; only the engine thread asks.
  mutable std::vector<std::vector<KvTile>> tiles_;
  mutable std::vector<std::unique_ptr<Scoring>> scoring_;
};

}  // namespace sala
