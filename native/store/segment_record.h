// One encoded segment as it lies in a segment file of the store: complete in itself, never changed, every part under a checksum.
//
//   header (128 bytes) · checksums, two for each run (K with its scales; the rest) · tokens · image (segment.h) on a 64-byte border
// All little-endian. The front is all before the image.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "native/context/segment.h"
#include "native/platform.h"

namespace sala {

constexpr uint32_t kSegmentRecordVersion = 1;

using SegmentKey = std::array<uint8_t, 32>;

// 64 hex digits ↔ key. Throws invalid_argument.
SegmentKey parse_segment_key(const std::string& hex);
std::string segment_key_text(const SegmentKey& key);

struct SegmentHeader {
  SegmentKey key;
  SegmentLayout layout;
  int n_header_tokens = 0;
  std::vector<int32_t> tokens;  // [layout.n_tokens]
};

// The keys that reading needs: of one sparse layer (counted among those), of some K/V heads.
struct ReadingKeys {
  int sparse_layer = 0;
  std::vector<int> kv_heads;
};

// Bytes before the image of a segment of this layout; of the whole record.
size_t segment_front_bytes(const SegmentLayout& layout);
size_t segment_record_bytes(const SegmentLayout& layout);

// Counts that a store may have from a damaged file: false where sizes computed from them could not be trusted.
bool is_plausible(const SegmentLayout& layout, int n_header_tokens);

struct SegmentFront {
  std::vector<uint8_t> bytes;  // [segment_front_bytes]
  uint64_t checksum = 0;       // of them; also in them
};
SegmentFront segment_front(const SegmentHeader& header, const uint8_t* image);

// Reads a record whose layout is known from elsewhere. Does not own its bytes: [segment_record_bytes].
class SegmentRecord {
 public:
  // Throws store_invalid where the front is not that of this segment or damaged; `where` appears in messages.
  SegmentRecord(const uint8_t* bytes, const SegmentKey& key, const SegmentLayout& layout, int n_header_tokens, std::string where);

  const uint8_t* image() const { return image_; }
  std::vector<int32_t> tokens() const;
  uint64_t front_checksum() const;
  // Every run. Throws store_invalid.
  void check_image() const;

 private:
  const uint8_t* bytes_;
  const uint8_t* image_;
  SegmentLayout layout_;
  std::string where_;
};

// The keys of `reading` one head behind the other, each K [n_tokens, head_dim] with its scales as in a run: n_heads × layout.v bytes.
inline size_t reading_keys_bytes(const SegmentLayout& layout, const ReadingKeys& reading) { return layout.v * reading.kv_heads.size(); }
// Where those of one head lie in an image.
inline size_t reading_keys_offset(const SegmentLayout& layout, const ReadingKeys& reading, size_t head) {
  return layout.run_bytes * (size_t(reading.sparse_layer) * layout.n_kv_heads + reading.kv_heads[head]);
}
// Sum over all of them, from an image or from where they lie together.
uint64_t reading_keys_checksum(const SegmentLayout& layout, const ReadingKeys& reading, const uint8_t* image);
uint64_t gathered_keys_checksum(const uint8_t* keys, size_t n_bytes);

}  // namespace sala
