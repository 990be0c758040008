// The bytes of a pack: what is known of a workspace's files and the segments they have, in one file that travels. Pure functions.
// Who writes and reads one is pack.h.
//
//   prefix (format_parts.h) · length and XXH3 of the head · head · zeros up to a 64-byte border
//   records of the segments (segment_record.h), in the order of the head, one behind the other
//   length and XXH3 of all before
//
// The head says what all of it was made with, then which segments there are and which of them each file has. Both are in ascending
// order and each is there once, so that equal memories are equal bytes. Where a record lies follows from the counts of those before it:
// there are no offsets. All little-endian. Whatever is read here may be anything: store_invalid, or store_newer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "native/store/segment_record.h"

namespace sala {

constexpr uint32_t kPackVersion = 1;
// Prefix, length and checksum of the head.
constexpr size_t kPackFrontBytes = 32;
constexpr size_t kPackEndBytes = 16;
// Some hundred million tokens: what is longer is no head, and is not read.
constexpr uint64_t kMostPackHeadBytes = uint64_t(1) << 26;

// What bytes of segments depend on beside their tokens, and cuts of files beside their bytes.
struct PackAbout {
  std::string identity;         // of the model
  std::string numerics;         // <family>.<revision>.<stored form>
  std::vector<int32_t> prefix;  // tokens
  uint32_t cutter_version = 0;
  bool operator==(const PackAbout&) const = default;
};

struct PackedSegment {
  SegmentKey key{};
  SegmentLayout layout;
  int n_header_tokens = 0;

  uint64_t record_bytes() const { return segment_record_bytes(layout); }
  bool operator==(const PackedSegment&) const = default;
};

struct PackedFile {
  std::string path;                // within its root, with '/'
  SegmentKey key{};                // address of its bytes
  std::vector<uint32_t> segments;  // indices, as they follow each other in the file
  bool operator==(const PackedFile&) const = default;
};

struct PackHead {
  PackAbout about;
  std::vector<PackedSegment> segments;  // ascending by key; each is some file's
  std::vector<PackedFile> files;        // ascending by path, then by key
  bool operator==(const PackHead&) const = default;
};

// All before the first record. The head is in order (CHECK). Throws unsupported where it is too long.
std::string encode_pack_front(const PackHead& head);

struct PackFront {
  uint64_t head_bytes = 0, checksum = 0;
  uint64_t end() const { return (kPackFrontBytes + head_bytes + 63) / 64 * 64; }  // where the first record lies
};
PackFront decode_pack_front(std::string_view bytes, const std::string& where);
// `bytes`: the head, and the zeros behind it.
PackHead decode_pack_head(std::string_view bytes, const PackFront& front, const std::string& where);

std::string encode_pack_end(uint64_t n_bytes, uint64_t checksum);

}  // namespace sala
