// What the files of the store and packs have in common: the prefix that tells what a file is, and a segment's counts. Not here: what
// else is in them (store_format.h, pack_format.h).
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "native/store/byte_codec.h"
#include "native/store/crc32c.h"
#include "native/store/segment_record.h"

namespace sala {

constexpr size_t kPrefixBytes = 16;

// Magic, version and a checksum of these two, the same in all versions to come: so a newer one is told from a damaged one.
inline void write_prefix(ByteWriter& to, std::string_view magic, uint32_t version) {
  ByteWriter prefix;
  prefix.raw(magic.data(), 8);
  prefix.u32(version);
  prefix.u32(crc32c(prefix.bytes().data(), prefix.size()));
  to.raw(prefix.bytes().data(), prefix.size());
}

// Throws store_newer where it is of a version above `newest`, store_invalid where it is none. `kind`: what was expected, for messages.
inline void read_prefix(ByteReader& from, std::string_view magic, uint32_t newest, const char* kind, const std::string& where) {
  const std::string_view bytes = from.take(12);
  const uint32_t stored = from.u32();
  if (bytes.substr(0, 8) != magic.substr(0, 8) || stored != crc32c(bytes.data(), bytes.size())) {
    fail(ErrorCode::store_invalid, where, ": expected ", kind, ", found something else");
  }
  const uint32_t version = ByteReader(bytes.substr(8), where).u32();
  if (version > newest) fail(ErrorCode::store_newer, where, ": expected format ", newest, " or older, found ", version);
  if (version == 0) fail(ErrorCode::store_invalid, where, ": expected a format, found 0");
}

// The counts alone: where the parts lie follows from them.
inline void write_layout(ByteWriter& to, const SegmentLayout& layout, int n_header_tokens) {
  to.u32(uint32_t(layout.form));
  to.u32(uint32_t(layout.n_tokens));
  to.u32(uint32_t(n_header_tokens));
  to.u32(uint32_t(layout.n_windows));
  to.u32(uint32_t(layout.n_sparse_layers));
  to.u32(uint32_t(layout.n_kv_heads));
  to.u32(uint32_t(layout.head_dim));
}

// Throws store_invalid where sizes computed from them could not be trusted.
inline SegmentLayout read_layout(ByteReader& from, int& n_header_tokens, const std::string& where) {
  SegmentLayout layout;
  layout.form = KvForm(from.u32());
  const auto count = [&] { return int(std::min<uint32_t>(from.u32(), 1u << 30)); };
  layout.n_tokens = count();
  n_header_tokens = count();
  layout.n_windows = count();
  layout.n_sparse_layers = count();
  layout.n_kv_heads = count();
  layout.head_dim = count();
  if (!is_plausible(layout, n_header_tokens)) fail(ErrorCode::store_invalid, where, ": expected the counts of a segment, found none");
  place_parts(layout);
  return layout;
}

inline SegmentKey read_key(ByteReader& from) {
  SegmentKey key;
  std::memcpy(key.data(), from.take(key.size()).data(), key.size());
  return key;
}

}  // namespace sala
