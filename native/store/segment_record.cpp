#include "native/store/segment_record.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>
#include <utility>

namespace sala {

namespace {

constexpr char kMagic[8] = {'S', 'A', 'L', 'A', 'S', 'E', 'G', '\n'};

// As it lies in the file.
struct RecordHeader {
  char magic[8];
  uint32_t version;
  uint32_t form;
  uint32_t n_tokens, n_header_tokens;
  uint32_t n_sparse_layers, n_kv_heads, head_dim, n_windows;
  uint64_t record_bytes;
  uint8_t key[32];
  uint8_t reserved[32];
  uint64_t front_checksum;  // of header (this field 0), checksums and tokens
  uint64_t padding;
};
static_assert(sizeof(RecordHeader) == 128);

size_t n_runs(const SegmentLayout& layout) { return size_t(layout.n_sparse_layers) * layout.n_kv_heads; }
size_t tokens_offset(const SegmentLayout& layout) { return sizeof(RecordHeader) + sizeof(uint64_t) * 2 * n_runs(layout); }

// Two sums a run: K with its scales, which reading needs alone, and the rest.
std::array<uint64_t, 2> run_checksums(const SegmentLayout& layout, const uint8_t* run) {
  return {XXH3_64bits(run, layout.v), XXH3_64bits(run + layout.v, layout.run_bytes - layout.v)};
}

// Of all before the image, the field that holds the sum counted as 0.
uint64_t checksum_of_front(const uint8_t* front, size_t n_bytes) {
  RecordHeader header;
  std::memcpy(&header, front, sizeof header);
  header.front_checksum = 0;
  return XXH3_64bits_withSeed(front + sizeof header, n_bytes - sizeof header, XXH3_64bits(&header, sizeof header));
}

RecordHeader header_of(const SegmentKey& key, const SegmentLayout& layout, int n_header_tokens) {
  RecordHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kSegmentRecordVersion;
  header.form = uint32_t(layout.form);
  header.n_tokens = uint32_t(layout.n_tokens);
  header.n_header_tokens = uint32_t(n_header_tokens);
  header.n_sparse_layers = uint32_t(layout.n_sparse_layers);
  header.n_kv_heads = uint32_t(layout.n_kv_heads);
  header.head_dim = uint32_t(layout.head_dim);
  header.n_windows = uint32_t(layout.n_windows);
  header.record_bytes = segment_record_bytes(layout);
  std::memcpy(header.key, key.data(), key.size());
  return header;
}

}  // namespace

SegmentKey parse_segment_key(const std::string& hex) {
  SegmentKey key{};
  const auto digit = [&](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    fail(ErrorCode::invalid_argument, "expected a segment key of 64 lower-case hex digits, found '", hex, "'");
  };
  if (hex.size() != 64) fail(ErrorCode::invalid_argument, "expected a segment key of 64 hex digits, found ", hex.size());
  for (size_t i = 0; i < key.size(); ++i) key[i] = uint8_t(digit(hex[2 * i]) * 16 + digit(hex[2 * i + 1]));
  return key;
}

std::string segment_key_text(const SegmentKey& key) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : key) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

size_t segment_front_bytes(const SegmentLayout& layout) {
  return (tokens_offset(layout) + sizeof(int32_t) * size_t(layout.n_tokens) + 63) / 64 * 64;
}

size_t segment_record_bytes(const SegmentLayout& layout) { return segment_front_bytes(layout) + layout.image_bytes(); }

bool is_plausible(const SegmentLayout& layout, int n_header_tokens) {
  // The product of these is below 2^57, so that no size overflows.
  const auto within = [](int value, int least, int most) { return value >= least && value <= most; };
  return (layout.form == KvForm::int8 || layout.form == KvForm::f32) && within(layout.n_tokens, 1, 1 << 20) &&
         within(layout.n_windows, 0, layout.n_tokens) && within(layout.n_sparse_layers, 1, 1 << 10) && within(layout.n_kv_heads, 1, 1 << 10) &&
         within(layout.head_dim, 1, 1 << 12) && within(n_header_tokens, 0, layout.n_tokens);
}

SegmentFront segment_front(const SegmentHeader& header, const uint8_t* image) {
  const SegmentLayout& layout = header.layout;
  CHECK(header.tokens.size() == size_t(layout.n_tokens));
  SegmentFront front;
  front.bytes.resize(segment_front_bytes(layout));
  const RecordHeader fixed = header_of(header.key, layout, header.n_header_tokens);
  std::memcpy(front.bytes.data(), &fixed, sizeof fixed);
  for (size_t run = 0; run < n_runs(layout); ++run) {
    const auto sums = run_checksums(layout, image + layout.run_bytes * run);
    std::memcpy(front.bytes.data() + sizeof fixed + sizeof sums * run, sums.data(), sizeof sums);
  }
  std::memcpy(front.bytes.data() + tokens_offset(layout), header.tokens.data(), sizeof(int32_t) * header.tokens.size());
  front.checksum = checksum_of_front(front.bytes.data(), front.bytes.size());
  std::memcpy(front.bytes.data() + offsetof(RecordHeader, front_checksum), &front.checksum, sizeof front.checksum);
  return front;
}

SegmentRecord::SegmentRecord(const uint8_t* bytes, const SegmentKey& key, const SegmentLayout& layout, int n_header_tokens, std::string where)
    : bytes_(bytes), image_(bytes + segment_front_bytes(layout)), layout_(layout), where_(std::move(where)) {
  RecordHeader expected = header_of(key, layout, n_header_tokens);
  expected.front_checksum = front_checksum();
  if (std::memcmp(bytes, &expected, sizeof expected) != 0) fail(ErrorCode::store_invalid, where_, ": expected segment ", segment_key_text(key), ", found something else");
  if (front_checksum() != checksum_of_front(bytes, segment_front_bytes(layout))) {
    fail(ErrorCode::store_invalid, where_, ": checksum of the header of segment ", segment_key_text(key), " differs");
  }
}

uint64_t SegmentRecord::front_checksum() const {
  uint64_t sum;
  std::memcpy(&sum, bytes_ + offsetof(RecordHeader, front_checksum), sizeof sum);
  return sum;
}

std::vector<int32_t> SegmentRecord::tokens() const {
  std::vector<int32_t> tokens(size_t(layout_.n_tokens));
  std::memcpy(tokens.data(), bytes_ + tokens_offset(layout_), sizeof(int32_t) * tokens.size());
  return tokens;
}

void SegmentRecord::check_image() const {
  for (size_t run = 0; run < n_runs(layout_); ++run) {
    std::array<uint64_t, 2> stored;
    std::memcpy(stored.data(), bytes_ + sizeof(RecordHeader) + sizeof stored * run, sizeof stored);
    if (stored != run_checksums(layout_, image_ + layout_.run_bytes * run)) fail(ErrorCode::store_invalid, where_, ": checksum of run ", run, " differs");
  }
}

uint64_t reading_keys_checksum(const SegmentLayout& layout, const ReadingKeys& reading, const uint8_t* image) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (size_t head = 0; head < reading.kv_heads.size(); ++head) XXH3_64bits_update(&state, image + reading_keys_offset(layout, reading, head), layout.v);
  return XXH3_64bits_digest(&state);
}

uint64_t gathered_keys_checksum(const uint8_t* keys, size_t n_bytes) { return XXH3_64bits(keys, n_bytes); }

}  // namespace sala
