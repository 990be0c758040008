// All segments in memory, by handle and by address. Reading keys stay resident; images are mapped from the store when a view needs
// them, or kept on the heap where there is no store or it has no room. Of the mapped ones those in view are resident, and as many of
// those used last as fit into kRecentBytes: last use decides what is resident, never what is in. Used by the engine thread only.
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
#include "native/store/store.h"

namespace sala {

class SegmentTable {
 public:
  // store: null: all stay on the heap. reading: what the store gathers; absent: keys are taken from the images.
  SegmentTable(const ModelConfig& config, KvForm form, std::shared_ptr<Store> store, std::optional<ReadingKeys> reading);
  ~SegmentTable();

  // Handle of a segment that is in memory or in the store, with one more reference; −1 otherwise, also where it was damaged: then the
  // store has dropped it.
  int open(const SegmentKey& key);

  // Of mapped images that are kept for the next view; the last one whatever its size.
  static constexpr size_t kRecentBytes = size_t{32} << 20;

  struct Added {
    int handle;
    std::optional<EngineError> store_failure;  // the segment is in memory all the same
  };
  // Takes a new image: to the store if there is one, then in memory with one reference.
  Added add(SegmentHeader header, Aligned<uint8_t> image);

  // Tries again to add a segment to the store that it refused. False: there is none left. Throws what the store throws.
  bool keep_one();
  // What the store needs room for before all that it refused can be added.
  uint64_t refused_bytes() const;

  // One more reference to a handle that is in memory.
  void retain(int handle) { ++get(handle).n_references; }
  // A handle that is not (or no longer) known is passed over: whoever cleans up must not fail.
  void release(int handle) noexcept;

  const SegmentLayout& layout(int handle) const { return get(handle).layout; }
  ViewSegment view(int handle, int n_hidden) const;
  // Maps the image if it is not. Throws store_invalid: it was damaged; the address is forgotten, so that the next one who asks for
  // it has it encoded again.
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
    bool acquired = false;                       // of the store, to be released there
    Aligned<uint8_t> keys;                       // as Store::read_keys() gives them, or empty
    std::vector<int32_t> tokens;                 // where it is on the heap, for another try to store it
    std::shared_ptr<Aligned<uint8_t>> resident;  // where it is on the heap
    std::weak_ptr<const void> mapped;
    const uint8_t* mapped_bytes = nullptr;
  };
  // Of a segment that is in memory already, with one more reference; −1 otherwise.
  int acquire(const SegmentKey& key);
  const Segment& get(int handle) const;
  Segment& get(int handle) { return const_cast<Segment&>(std::as_const(*this).get(handle)); }
  int insert(Segment segment);
  void keep_recent(int handle, const SegmentImage& image);
  void drop_recent(std::list<std::pair<int, SegmentImage>>::iterator at) noexcept;
  // From now on the address leads to nothing: it may do so already, or to another handle.
  void forget_key(const Segment& segment, int handle) noexcept;
  Aligned<uint8_t> gathered_keys(const SegmentLayout& layout, const uint8_t* image) const;

  const ModelConfig& config_;
  KvForm form_;
  std::shared_ptr<Store> store_;
  std::optional<ReadingKeys> reading_;
  std::unordered_map<int, Segment> by_handle_;
  std::map<SegmentKey, int> by_key_;
  std::vector<int> refused_;  // handles of what is on the heap though there is a store; some may be gone
  int next_handle_ = 0;
  size_t reading_key_bytes_ = 0, image_bytes_ = 0;
  std::list<std::pair<int, SegmentImage>> recent_;  // by handle, used last first
  size_t recent_bytes_ = 0;
};

}  // namespace sala
