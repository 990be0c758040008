// The bytes of the store's files, and what they say; pure functions. Which files there are and when they are written: store.h.
//
//   CURRENT      "MANIFEST-<n>\n"
//   MANIFEST-n   prefix · length and XXH3 of the body · body: all that was known at a checkpoint, and the number of the log behind it
//   wal-n        prefix · number · records: length, CRC-32C, sequence, one commit each; replay stops at the first bad one
//   seg-n.kv     4096 bytes of header · records (segment_record.h), each on a 64-byte border · once sealed: the reading keys of all
//                its segments, on a 4096-byte border
// A prefix is magic, version and a checksum of these two, the same in all versions to come: so a newer one is told from a damaged one.
// All little-endian. Whatever is read here may be anything: store_invalid, or store_newer.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "native/store/segment_record.h"

namespace sala {

constexpr uint32_t kStoreVersion = 1;
constexpr size_t kSegmentFileHeaderBytes = 4096;
constexpr size_t kWalHeaderBytes = 32;

// Records of bytes that the store's user encodes, by key.
enum class StoreTable : uint8_t { files, versions, roots };
constexpr size_t kStoreTables = 3;

// Where a segment lies.
struct StoredSegment {
  uint64_t file = 0;         // seg-<file>.kv
  uint64_t offset = 0;       // of its record
  uint64_t keys_offset = 0;  // of its reading keys in a sealed file; 0: they are where the image has them
  uint64_t front_checksum = 0, keys_checksum = 0;
  SegmentLayout layout;
  int n_header_tokens = 0;

  uint64_t record_bytes() const { return segment_record_bytes(layout); }
  uint64_t end() const { return offset + record_bytes(); }
  bool is_at(const StoredSegment& other) const { return file == other.file && offset == other.offset; }
};

struct SealedFile {
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3 of all of them
};

struct StoreState {
  std::string identity;
  uint64_t sequence = 0;     // of the last commit that is in it
  uint64_t next_number = 1;  // above the numbers of all files
  uint64_t wal = 0;          // the log of what comes after it
  std::map<SegmentKey, StoredSegment> segments;
  std::map<uint64_t, SealedFile> sealed;
  std::array<std::map<std::string, std::string>, kStoreTables> tables;
};

// What one commit changes. Nothing: removed.
struct StoreChanges {
  std::map<SegmentKey, std::optional<StoredSegment>> segments;
  std::map<uint64_t, SealedFile> sealed;
  std::array<std::map<std::string, std::optional<std::string>>, kStoreTables> tables;

  bool empty() const;
  void apply_to(StoreState& state) const;
};

std::string encode_manifest(const StoreState& state);
StoreState decode_manifest(std::string_view bytes, const std::string& where);

std::string encode_wal_header(uint64_t number);
std::string encode_wal_record(uint64_t sequence, const StoreChanges& changes);
// Applies the commits of a log to the state that it follows. Returns how many of its bytes are sound: 0 if not even the header is.
size_t replay_wal(std::string_view bytes, uint64_t number, StoreState& state, const std::string& where);

std::string encode_segment_file_header(uint64_t number);
bool is_segment_file_header(std::string_view bytes, uint64_t number);

std::string encode_current(uint64_t manifest);
std::optional<uint64_t> decode_current(std::string_view bytes);

std::string manifest_name(uint64_t number);
std::string wal_name(uint64_t number);
std::string segment_file_name(uint64_t number);

struct StoreFileName {
  enum class Kind { manifest, wal, segments } kind;
  uint64_t number;
};
// Nothing: a name that is none of the store's.
std::optional<StoreFileName> parse_store_file_name(const std::string& name);

}  // namespace sala
