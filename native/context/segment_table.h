// All segments in memory, by handle and by address. Reading keys stay resident; images are mapped from their files when a view
// needs them, or kept on the heap where there is no store. Used by the engine thread only.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "native/context/view.h"
#include "native/store/segment_file.h"

namespace sala {

class SegmentTable {
 public:
  // folder: of the segment files, empty: no store. reading: absent: keys are taken from the images.
  SegmentTable(const ModelConfig& config, KvForm form, std::string folder, std::optional<ReadingKeys> reading);

  // Handle of a segment that is in memory or in the store, with one more reference; −1 otherwise. `refused` says why a file that is
  // there was not used: store_invalid, then it is set aside as `<name>.damaged`; store_newer, then it is left until the segment is
  // encoded again.
  int open(const SegmentKey& key, std::optional<ErrorCode>& refused);

  struct Added {
    int handle;
    std::optional<EngineError> store_failure;  // the segment is in memory all the same
  };
  // Takes a new image: written to the store if there is one, then in memory with one reference.
  Added add(SegmentHeader header, Aligned<uint8_t> image);

  // One more reference to a handle that is in memory.
  void retain(int handle) { ++get(handle).n_references; }
  // A handle that is not (or no longer) known is passed over: whoever cleans up must not fail.
  void release(int handle) noexcept;

  const SegmentLayout& layout(int handle) const { return get(handle).layout; }
  ViewSegment view(int handle, int n_hidden) const;
  // Maps the image if it is not. A damaged file is set aside, and of that or a newer one the segment forgotten: throws store_invalid.
  SegmentImage image(int handle);
  // Keys of one head behind the header; `hold` keeps alive what they lie in.
  ReadSpan reading_keys(int handle, int sparse_layer, int kv_head, std::vector<SegmentImage>& hold);

  size_t n_segments() const { return by_handle_.size(); }
  size_t reading_key_bytes() const { return reading_key_bytes_; }
  size_t image_bytes() const { return image_bytes_; }

 private:
  struct Segment {
    SegmentKey key;
    SegmentLayout layout;
    int n_header_tokens = 0;
    int n_references = 0;
    std::vector<SegmentFile::Keys> keys;        // of each of reading_->kv_heads, or empty
    std::shared_ptr<Aligned<uint8_t>> resident; // where there is no file
    std::weak_ptr<const void> mapped;
    const uint8_t* mapped_bytes = nullptr;
  };
  // Of a segment that is in memory already, with one more reference; −1 otherwise.
  int acquire(const SegmentKey& key);
  const Segment& get(int handle) const;
  Segment& get(int handle) { return const_cast<Segment&>(std::as_const(*this).get(handle)); }
  int insert(Segment segment);
  // From now on the address leads to nothing: it may do so already, or to another handle.
  void forget_key(const Segment& segment, int handle) noexcept;
  void set_aside(const std::string& path) const;

  const ModelConfig& config_;
  KvForm form_;
  std::string folder_;
  std::optional<ReadingKeys> reading_;
  std::unordered_map<int, Segment> by_handle_;
  std::map<SegmentKey, int> by_key_;
  int next_handle_ = 0;
  size_t reading_key_bytes_ = 0, image_bytes_ = 0;
  std::list<SegmentImage> recent_;  // mappings kept for the next view, most recent first
};

}  // namespace sala
