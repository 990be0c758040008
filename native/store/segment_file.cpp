#include "native/store/segment_file.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

namespace sala {

namespace {

constexpr char kMagic[8] = {'S', 'A', 'L', 'A', 'S', 'E', 'G', '\n'};

// As it lies in the file.
struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t form;
  uint32_t n_tokens, n_header_tokens;
  uint32_t n_sparse_layers, n_kv_heads, head_dim, n_windows;
  uint64_t file_bytes;
  uint8_t key[32];
  uint8_t reserved[32];
  uint64_t front_checksum;  // of header (this field 0), checksums and tokens
  uint64_t padding;
};
static_assert(sizeof(FileHeader) == 128);

struct Offsets {
  size_t checksums, tokens, image, end;
};

Offsets offsets(const SegmentLayout& layout) {
  Offsets at;
  at.checksums = sizeof(FileHeader);
  at.tokens = at.checksums + sizeof(uint64_t) * 2 * size_t(layout.n_sparse_layers) * layout.n_kv_heads;
  at.image = (at.tokens + sizeof(int32_t) * size_t(layout.n_tokens) + 63) / 64 * 64;
  at.end = at.image + layout.image_bytes();
  return at;
}

// Of all before the image, the field that holds the sum counted as 0.
uint64_t front_checksum(const uint8_t* front, size_t image_offset) {
  FileHeader header;
  std::memcpy(&header, front, sizeof header);
  header.front_checksum = 0;
  return XXH3_64bits_withSeed(front + sizeof header, image_offset - sizeof header, XXH3_64bits(&header, sizeof header));
}

}  // namespace

std::string segment_path(const std::string& folder, const SegmentKey& key) {
  const std::string text = segment_key_text(key);
  return join_path(join_path(folder, text.substr(0, 2)), text + ".seg");
}

void write_segment_file(const std::string& path, const SegmentHeader& header, const uint8_t* image) {
  const SegmentFront front = segment_front(header, image);
  ensure_folder(path.substr(0, path.rfind('/')));
  write_file_atomically(path, {{front.bytes.data(), front.bytes.size()}, {image, header.layout.image_bytes()}});
}

SegmentFile::SegmentFile(const std::string& path, const SegmentKey& key, const ModelConfig& config, KvForm form)
    : file_(path, ErrorCode::store_invalid) {
  FileHeader file;
  if (file_.size() < sizeof file) fail(ErrorCode::store_invalid, path, ": expected a header of 128 bytes, file has ", file_.size());
  std::memcpy(&file, file_.data(), sizeof file);
  if (std::memcmp(file.magic, kMagic, sizeof kMagic) != 0) fail(ErrorCode::store_invalid, path, ": not a segment file");
  // A newer format says what it likes behind the version; what fits this one in all else is a damaged file of this one.
  const auto refuse = [&](const auto&... parts) {
    if (file.version > kSegmentFileVersion) {
      fail(ErrorCode::store_newer, path, ": expected format ", kSegmentFileVersion, ", found ", file.version);
    }
    fail(ErrorCode::store_invalid, path, ": ", parts...);
  };
  if (file.n_tokens == 0 || file.n_tokens > (1u << 24) || file.n_header_tokens > file.n_tokens) {
    refuse("expected 1 to 2^24 tokens and a header within them, found ", file.n_tokens, " and ", file.n_header_tokens);
  }
  header_.layout = segment_layout(config, form, int(file.n_tokens));
  const SegmentLayout& layout = header_.layout;
  const Offsets at = offsets(layout);
  if (file.form != uint32_t(form) || file.n_sparse_layers != uint32_t(layout.n_sparse_layers) ||
      file.n_kv_heads != uint32_t(layout.n_kv_heads) || file.head_dim != uint32_t(layout.head_dim) ||
      file.n_windows != uint32_t(layout.n_windows)) {
    refuse("made for another model or stored form");
  }
  if (file.file_bytes != at.end || file_.size() != at.end) {
    refuse("expected ", at.end, " bytes, file has ", file_.size());
  }
  if (std::memcmp(file.key, key.data(), key.size()) != 0) fail(ErrorCode::store_invalid, path, ": holds another segment");
  if (file.front_checksum != front_checksum(file_.data(), at.image)) fail(ErrorCode::store_invalid, path, ": checksum of the header differs");
  header_.key = key;
  header_.n_header_tokens = int(file.n_header_tokens);
  header_.tokens.resize(file.n_tokens);
  std::memcpy(header_.tokens.data(), file_.data() + at.tokens, sizeof(int32_t) * header_.tokens.size());
  image_offset_ = at.image;
}

void SegmentFile::check(int run, bool rest) const {
  const SegmentLayout& layout = header_.layout;
  const uint8_t* at = image() + layout.run_bytes * run;
  uint64_t stored;
  std::memcpy(&stored, file_.data() + offsets(layout).checksums + sizeof(uint64_t) * (2 * size_t(run) + rest), sizeof stored);
  const uint64_t found = rest ? XXH3_64bits(at + layout.v, layout.run_bytes - layout.v) : XXH3_64bits(at, layout.v);
  if (stored != found) fail(ErrorCode::store_invalid, file_.path(), ": checksum of run ", run, " differs");
}

SegmentFile::Keys SegmentFile::keys(int sparse_layer, int kv_head) const {
  const SegmentLayout& layout = header_.layout;
  const int run = sparse_layer * layout.n_kv_heads + kv_head;
  check(run, false);
  const uint8_t* at = image() + layout.run_bytes * run;
  Keys keys;
  keys.rows = Aligned<uint8_t>(layout.element_bytes() * size_t(layout.n_tokens) * layout.head_dim);
  std::memcpy(keys.rows.data(), at, keys.rows.size());
  if (layout.form == KvForm::int8) {
    keys.scales = Aligned<float>(layout.n_tokens);
    std::memcpy(keys.scales.data(), at + layout.k_scales, sizeof(float) * layout.n_tokens);
  }
  return keys;
}

SegmentImage SegmentFile::map(SegmentFile file) {
  for (int run = 0; run < file.header_.layout.n_sparse_layers * file.header_.layout.n_kv_heads; ++run) {
    file.check(run, false);
    file.check(run, true);
  }
  auto owner = std::make_shared<SegmentFile>(std::move(file));
  return {owner, owner->image()};
}

}  // namespace sala
