#include "native/store/pack_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <tuple>

#include "native/store/format_parts.h"

namespace sala {

namespace {

constexpr char kPackMagic[9] = "SALAPAK\n";

bool comes_before(const PackedFile& a, const PackedFile& b) { return std::tie(a.path, a.key) < std::tie(b.path, b.key); }

bool is_path(std::string_view path) { return !path.empty() && path.find('\0') == std::string_view::npos; }

// One way to write a head, and one to read it: what is not in order, or there for nothing, is none.
bool is_in_order(const PackHead& head) {
  std::vector<bool> used(head.segments.size());
  for (const PackedFile& file : head.files) {
    if (!is_path(file.path)) return false;
    for (uint32_t index : file.segments) {
      if (index >= used.size()) return false;
      used[index] = true;
    }
  }
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i] || (i > 0 && !(head.segments[i - 1].key < head.segments[i].key))) return false;
  }
  for (size_t i = 1; i < head.files.size(); ++i) {
    if (!comes_before(head.files[i - 1], head.files[i])) return false;
  }
  return true;
}

}  // namespace

std::string encode_pack_front(const PackHead& head) {
  CHECK(is_in_order(head));
  ByteWriter body;
  body.string(head.about.identity);
  body.string(head.about.numerics);
  body.u32(uint32_t(head.about.prefix.size()));
  for (int32_t token : head.about.prefix) body.u32(uint32_t(token));
  body.u32(head.about.cutter_version);
  body.u64(head.segments.size());
  for (const PackedSegment& segment : head.segments) {
    body.raw(segment.key.data(), segment.key.size());
    write_layout(body, segment.layout, segment.n_header_tokens);
  }
  body.u64(head.files.size());
  for (const PackedFile& file : head.files) {
    body.string(file.path);
    body.raw(file.key.data(), file.key.size());
    body.u32(uint32_t(file.segments.size()));
    for (uint32_t index : file.segments) body.u32(index);
  }
  if (body.size() > kMostPackHeadBytes) fail(ErrorCode::unsupported, "expected a table of files of at most ", kMostPackHeadBytes, " bytes for a pack, found ", body.size());
  ByteWriter front;
  write_prefix(front, kPackMagic, kPackVersion);
  front.u64(body.size());
  front.u64(XXH3_64bits(body.bytes().data(), body.size()));
  front.raw(body.bytes().data(), body.size());
  std::string bytes = front.take();
  bytes.resize((bytes.size() + 63) / 64 * 64);
  return bytes;
}

PackFront decode_pack_front(std::string_view bytes, const std::string& where) {
  ByteReader from(bytes, where);
  read_prefix(from, kPackMagic, kPackVersion, "a pack", where);
  PackFront front;
  front.head_bytes = from.u64();
  front.checksum = from.u64();
  if (front.head_bytes > kMostPackHeadBytes) fail(ErrorCode::store_invalid, where, ": expected a head of at most ", kMostPackHeadBytes, " bytes, found ", front.head_bytes);
  return front;
}

PackHead decode_pack_head(std::string_view bytes, const PackFront& front, const std::string& where) {
  CHECK(bytes.size() == front.end() - kPackFrontBytes);
  const std::string_view body = bytes.substr(0, front.head_bytes), zeros = bytes.substr(front.head_bytes);
  if (XXH3_64bits(body.data(), body.size()) != front.checksum) fail(ErrorCode::store_invalid, where, ": checksum of the head differs");
  if (zeros.find_first_not_of('\0') != std::string_view::npos) fail(ErrorCode::store_invalid, where, ": expected zeros behind the head, found something else");
  ByteReader from(body, where);
  PackHead head;
  head.about.identity = std::string(from.string());
  head.about.numerics = std::string(from.string());
  for (uint32_t n = from.u32(); n > 0; --n) head.about.prefix.push_back(int32_t(from.u32()));
  head.about.cutter_version = from.u32();
  for (uint64_t n = from.u64(); n > 0; --n) {
    PackedSegment segment;
    segment.key = read_key(from);
    segment.layout = read_layout(from, segment.n_header_tokens, where);
    head.segments.push_back(segment);
  }
  for (uint64_t n = from.u64(); n > 0; --n) {
    PackedFile file;
    file.path = std::string(from.string());
    file.key = read_key(from);
    for (uint32_t k = from.u32(); k > 0; --k) file.segments.push_back(from.u32());
    head.files.push_back(std::move(file));
  }
  if (!from.at_end()) fail(ErrorCode::store_invalid, where, ": expected the end of the head at byte ", from.at());
  if (!is_in_order(head)) fail(ErrorCode::store_invalid, where, ": expected files and segments in order, each once, found something else");
  return head;
}

std::string encode_pack_end(uint64_t n_bytes, uint64_t checksum) {
  ByteWriter end;
  end.u64(n_bytes);
  end.u64(checksum);
  return end.take();
}

}  // namespace sala
