#include "native/store/store_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>

#include "native/store/format_parts.h"

namespace sala {

namespace {

constexpr char kManifestMagic[9] = "SALAMAN\n", kWalMagic[9] = "SALAWAL\n", kSegmentFileMagic[9] = "SALASEGF";
constexpr size_t kWalRecordHeaderBytes = 16;
// Above the numbers and offsets that any disk holds, and far from overflow.
constexpr uint64_t kMost = uint64_t(1) << 55;

void write_segment(ByteWriter& to, const StoredSegment& segment) {
  to.u64(segment.file);
  to.u64(segment.offset);
  to.u64(segment.keys_offset);
  to.u64(segment.front_checksum);
  to.u64(segment.keys_checksum);
  write_layout(to, segment.layout, segment.n_header_tokens);
}

StoredSegment read_segment(ByteReader& from, const std::string& where) {
  StoredSegment segment;
  segment.file = from.u64();
  segment.offset = from.u64();
  segment.keys_offset = from.u64();
  segment.front_checksum = from.u64();
  segment.keys_checksum = from.u64();
  segment.layout = read_layout(from, segment.n_header_tokens, where);
  const bool placed = segment.file > 0 && segment.file < kMost && segment.offset >= kSegmentFileHeaderBytes && segment.offset % 64 == 0 &&
                      segment.offset < kMost && segment.keys_offset < kMost;
  if (!placed) fail(ErrorCode::store_invalid, where, ": expected the place of a segment, found none");
  return segment;
}

void write_sealed(ByteWriter& to, uint64_t number, const SealedFile& file) {
  to.u64(number);
  to.u64(file.bytes);
  to.u64(file.checksum);
}

std::pair<uint64_t, SealedFile> read_sealed(ByteReader& from, const std::string& where) {
  const uint64_t number = from.u64();
  SealedFile file;
  file.bytes = from.u64();
  file.checksum = from.u64();
  if (number == 0 || number >= kMost || file.bytes >= kMost) fail(ErrorCode::store_invalid, where, ": expected a segment file, found none");
  return {number, file};
}

enum class Change : uint8_t { put_segment = 1, remove_segment, seal_file, put_record, remove_record };

StoreTable read_table(ByteReader& from, const std::string& where) {
  const uint8_t table = from.u8();
  if (table >= kStoreTables) fail(ErrorCode::store_invalid, where, ": expected a table below ", kStoreTables, ", found ", int(table));
  return StoreTable(table);
}

StoreChanges read_changes(std::string_view bytes, const std::string& where) {
  ByteReader from(bytes, where);
  StoreChanges changes;
  while (!from.at_end()) {
    switch (Change(from.u8())) {
      case Change::put_segment: {
        const SegmentKey key = read_key(from);
        changes.segments[key] = read_segment(from, where);
        break;
      }
      case Change::remove_segment:
        changes.segments[read_key(from)] = std::nullopt;
        break;
      case Change::seal_file:
        changes.sealed.insert(read_sealed(from, where));
        break;
      case Change::put_record: {
        auto& table = changes.tables[size_t(read_table(from, where))];
        std::string key(from.string());
        table[std::move(key)] = std::string(from.string());
        break;
      }
      case Change::remove_record: {
        auto& table = changes.tables[size_t(read_table(from, where))];
        table[std::string(from.string())] = std::nullopt;
        break;
      }
      default:
        fail(ErrorCode::store_invalid, where, ": expected a change, found something else");
    }
  }
  return changes;
}

std::optional<uint64_t> parse_number(std::string_view digits) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || digits[0] == '0' || number >= 2 * kMost) return std::nullopt;
  return number;
}

}  // namespace

bool StoreChanges::empty() const {
  return segments.empty() && sealed.empty() && std::all_of(tables.begin(), tables.end(), [](const auto& table) { return table.empty(); });
}

void StoreChanges::apply_to(StoreState& state) const {
  for (const auto& [key, segment] : segments) {
    if (segment) state.segments[key] = *segment;
    else state.segments.erase(key);
  }
  for (const auto& [number, file] : sealed) state.sealed[number] = file;
  for (size_t i = 0; i < kStoreTables; ++i) {
    for (const auto& [key, value] : tables[i]) {
      if (value) state.tables[i][key] = *value;
      else state.tables[i].erase(key);
    }
  }
}

std::string encode_manifest(const StoreState& state) {
  ByteWriter body;
  body.string(state.identity);
  body.u64(state.sequence);
  body.u64(state.next_number);
  body.u64(state.wal);
  body.u64(state.sealed.size());
  for (const auto& [number, file] : state.sealed) write_sealed(body, number, file);
  body.u64(state.segments.size());
  for (const auto& [key, segment] : state.segments) {
    body.raw(key.data(), key.size());
    write_segment(body, segment);
  }
  for (const auto& table : state.tables) {
    body.u64(table.size());
    for (const auto& [key, value] : table) {
      body.string(key);
      body.string(value);
    }
  }
  ByteWriter file;
  write_prefix(file, kManifestMagic, kStoreVersion);
  file.u64(body.size());
  file.u64(XXH3_64bits(body.bytes().data(), body.size()));
  file.raw(body.bytes().data(), body.size());
  return file.take();
}

StoreState decode_manifest(std::string_view bytes, const std::string& where) {
  ByteReader from(bytes, where);
  read_prefix(from, kManifestMagic, kStoreVersion, "a file of the store", where);
  const uint64_t n_bytes = from.u64(), checksum = from.u64();
  if (n_bytes != bytes.size() - from.at()) fail(ErrorCode::store_invalid, where, ": expected ", n_bytes, " bytes, found ", bytes.size() - from.at());
  if (checksum != XXH3_64bits(bytes.data() + from.at(), n_bytes)) fail(ErrorCode::store_invalid, where, ": checksum differs");
  StoreState state;
  state.identity = std::string(from.string());
  state.sequence = from.u64();
  state.next_number = from.u64();
  state.wal = from.u64();
  if (state.next_number >= kMost || state.wal >= kMost) fail(ErrorCode::store_invalid, where, ": expected numbers of files, found ", state.next_number);
  for (uint64_t n = from.u64(); n > 0; --n) state.sealed.insert(read_sealed(from, where));
  for (uint64_t n = from.u64(); n > 0; --n) {
    const SegmentKey key = read_key(from);
    state.segments[key] = read_segment(from, where);
  }
  for (auto& table : state.tables) {
    for (uint64_t n = from.u64(); n > 0; --n) {
      std::string key(from.string());
      table[std::move(key)] = std::string(from.string());
    }
  }
  if (!from.at_end()) fail(ErrorCode::store_invalid, where, ": expected the end at byte ", from.at());
  return state;
}

std::string encode_wal_header(uint64_t number) {
  ByteWriter header;
  write_prefix(header, kWalMagic, kStoreVersion);
  header.u64(number);
  header.u32(0);
  header.u32(crc32c(header.bytes().data(), header.size()));
  return header.take();
}

std::string encode_wal_record(uint64_t sequence, const StoreChanges& changes) {
  ByteWriter body;
  for (const auto& [key, segment] : changes.segments) {
    body.u8(uint8_t(segment ? Change::put_segment : Change::remove_segment));
    body.raw(key.data(), key.size());
    if (segment) write_segment(body, *segment);
  }
  for (const auto& [number, file] : changes.sealed) {
    body.u8(uint8_t(Change::seal_file));
    write_sealed(body, number, file);
  }
  for (size_t i = 0; i < kStoreTables; ++i) {
    for (const auto& [key, value] : changes.tables[i]) {
      body.u8(uint8_t(value ? Change::put_record : Change::remove_record));
      body.u8(uint8_t(i));
      body.string(key);
      if (value) body.string(*value);
    }
  }
  // The checksum is over all but itself: a record that was moved or cut is none.
  ByteWriter length, behind;
  length.u32(uint32_t(body.size()));
  behind.u64(sequence);
  behind.raw(body.bytes().data(), body.size());
  ByteWriter record;
  record.raw(length.bytes().data(), length.size());
  record.u32(crc32c(behind.bytes().data(), behind.size(), crc32c(length.bytes().data(), length.size())));
  record.raw(behind.bytes().data(), behind.size());
  return record.take();
}

size_t replay_wal(std::string_view bytes, uint64_t number, StoreState& state, const std::string& where) {
  if (bytes.size() < kWalHeaderBytes || bytes.substr(0, kWalHeaderBytes) != encode_wal_header(number)) return 0;
  size_t at = kWalHeaderBytes;
  while (bytes.size() - at >= kWalRecordHeaderBytes) {
    ByteReader header(bytes.substr(at, kWalRecordHeaderBytes), where);
    const size_t length = header.u32();
    const uint32_t checksum = header.u32();
    const uint64_t sequence = header.u64();
    if (length > bytes.size() - at - kWalRecordHeaderBytes || sequence != state.sequence + 1) break;
    if (checksum != crc32c(bytes.data() + at + 8, 8 + length, crc32c(bytes.data() + at, 4))) break;
    try {
      read_changes(bytes.substr(at + kWalRecordHeaderBytes, length), where).apply_to(state);
    } catch (const EngineError& error) {
      if (error.code() != ErrorCode::store_invalid) throw;
      break;
    }
    state.sequence = sequence;
    at += kWalRecordHeaderBytes + length;
  }
  return at;
}

std::string encode_segment_file_header(uint64_t number) {
  ByteWriter header;
  write_prefix(header, kSegmentFileMagic, kStoreVersion);
  header.u64(number);
  std::string bytes = header.take();
  bytes.resize(kSegmentFileHeaderBytes);
  const uint32_t checksum = crc32c(bytes.data(), bytes.size() - 4);
  for (int i = 0; i < 4; ++i) bytes[bytes.size() - 4 + size_t(i)] = char(uint8_t(checksum >> 8 * i));
  return bytes;
}

bool is_segment_file_header(std::string_view bytes, uint64_t number) { return bytes == encode_segment_file_header(number); }

std::string encode_current(uint64_t manifest) { return manifest_name(manifest) + "\n"; }

std::optional<uint64_t> decode_current(std::string_view bytes) {
  if (bytes.empty() || bytes.back() != '\n') return std::nullopt;
  const auto name = parse_store_file_name(std::string(bytes.substr(0, bytes.size() - 1)));
  if (!name || name->kind != StoreFileName::Kind::manifest) return std::nullopt;
  return name->number;
}

std::string manifest_name(uint64_t number) { return "MANIFEST-" + std::to_string(number); }
std::string wal_name(uint64_t number) { return "wal-" + std::to_string(number); }
std::string segment_file_name(uint64_t number) { return "seg-" + std::to_string(number) + ".kv"; }

std::optional<StoreFileName> parse_store_file_name(const std::string& name) {
  using Kind = StoreFileName::Kind;
  const auto match = [&](std::string_view before, std::string_view behind, Kind kind) -> std::optional<StoreFileName> {
    const std::string_view text = name;
    if (text.size() <= before.size() + behind.size() || text.substr(0, before.size()) != before) return std::nullopt;
    if (text.substr(text.size() - behind.size()) != behind) return std::nullopt;
    const auto number = parse_number(text.substr(before.size(), text.size() - before.size() - behind.size()));
    if (!number) return std::nullopt;
    return StoreFileName{kind, *number};
  };
  if (const auto found = match("MANIFEST-", "", Kind::manifest)) return found;
  if (const auto found = match("wal-", "", Kind::wal)) return found;
  return match("seg-", ".kv", Kind::segments);
}

}  // namespace sala
