#include "native/store/pack.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <tuple>

namespace sala {

namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

uint64_t pack_bytes(const PackHead& head, uint64_t front_bytes) {
  uint64_t bytes = front_bytes + kPackEndBytes;
  for (const PackedSegment& segment : head.segments) bytes += segment.record_bytes();
  return bytes;
}

PackHead make_head(const Store& store, PackAbout about, std::vector<PackInput> inputs) {
  PackHead head;
  head.about = std::move(about);
  std::map<SegmentKey, uint32_t> index;
  for (const PackInput& input : inputs) {
    for (const SegmentKey& key : input.segments) index[key] = 0;
  }
  for (auto& [key, i] : index) {
    const auto info = store.find(key);
    if (!info) fail(ErrorCode::store_invalid, "expected segment ", segment_key_text(key), " in the store, found none");
    i = uint32_t(head.segments.size());
    head.segments.push_back({key, info->layout, info->n_header_tokens});
  }
  for (PackInput& input : inputs) {
    PackedFile file{std::move(input.path), input.key, {}};
    for (const SegmentKey& key : input.segments) file.segments.push_back(index.at(key));
    head.files.push_back(std::move(file));
  }
  std::sort(head.files.begin(), head.files.end(),
            [](const PackedFile& a, const PackedFile& b) { return std::tie(a.path, a.key, a.segments) < std::tie(b.path, b.key, b.segments); });
  head.files.erase(std::unique(head.files.begin(), head.files.end()), head.files.end());
  return head;
}

// XXH3 of bytes that come in pieces.
struct RunningSum {
  RunningSum() { XXH3_64bits_reset(&state); }
  void add(const void* data, size_t n_bytes) { XXH3_64bits_update(&state, data, n_bytes); }
  uint64_t digest() const { return XXH3_64bits_digest(&state); }
  XXH3_state_t state;
};

}  // namespace

struct PackWriter::Sum : RunningSum {};
struct PackReader::Sum : RunningSum {};

// ---- writing --------------------------------------------------------------------------------------------------------

PackWriter::PackWriter(FileSystem& files, std::string path, std::string temporary, std::shared_ptr<Store> store, PackAbout about, std::vector<PackInput> inputs)
    : files_(files),
      path_(std::move(path)),
      temporary_(std::move(temporary)),
      store_(std::move(store)),
      head_(make_head(*store_, std::move(about), std::move(inputs))),
      sum_(std::make_unique<Sum>()) {
  const std::string front = encode_pack_front(head_);
  bytes_ = pack_bytes(head_, front.size());
  if (files_.size(temporary_)) fail(ErrorCode::store_unwritable, temporary_, ": expected no such file, found one");
  file_ = files_.open_append(temporary_);
  try {
    append({{front.data(), front.size()}});
  } catch (...) {
    file_.reset();
    files_.remove(temporary_);
    throw;
  }
}

PackWriter::~PackWriter() {
  if (!file_) return;
  file_.reset();
  try {
    files_.remove(temporary_);
  } catch (...) {
    // Whoever took the right to remove it has to do it.
  }
}

void PackWriter::append(const std::vector<Bytes>& parts) {
  file_->append(parts);
  for (const Bytes& part : parts) sum_->add(part.data, part.size);
}

uint64_t PackWriter::written() const { return file_ ? file_->size() : bytes_; }

bool PackWriter::write(uint64_t max_bytes) {
  CHECK(file_ != nullptr);
  for (uint64_t n_bytes = 0; next_ < head_.segments.size() && n_bytes < max_bytes; ++next_) {
    const PackedSegment& segment = head_.segments[next_];
    const FileBytes record = store_->record(segment.key);
    if (record.size != segment.record_bytes()) fail(ErrorCode::store_invalid, "segment ", segment_key_text(segment.key), ": expected ", segment.record_bytes(), " bytes, found ", record.size);
    append({{record.data, record.size}});
    n_bytes += record.size;
  }
  return next_ < head_.segments.size();
}

void PackWriter::finish() {
  CHECK(file_ != nullptr && next_ == head_.segments.size());
  const std::string end = encode_pack_end(file_->size(), sum_->digest());
  file_->append({{end.data(), end.size()}});
  file_->sync();
  files_.rename(temporary_, path_);
  file_.reset();
  files_.sync_folder(folder_of(path_));
}

// ---- reading --------------------------------------------------------------------------------------------------------

PackReader::PackReader(FileSystem& files, std::string path) : path_(std::move(path)), file_(files.open_read(path_)), sum_(std::make_unique<Sum>()) {
  bytes_ = files.size(path_).value_or(0);
  std::string front(kPackFrontBytes, '\0');
  if (bytes_ < front.size()) fail(ErrorCode::store_invalid, path_, ": expected a pack, found ", bytes_, " bytes");
  file_->read(0, front.data(), front.size());
  const PackFront decoded = decode_pack_front(front, path_);
  if (decoded.end() > bytes_) fail(ErrorCode::store_invalid, path_, ": expected a head of ", decoded.head_bytes, " bytes, found ", bytes_, " bytes in all");
  std::string head(size_t(decoded.end() - front.size()), '\0');
  file_->read(front.size(), head.data(), head.size());
  head_ = decode_pack_head(head, decoded, path_);
  sum_->add(front.data(), front.size());
  sum_->add(head.data(), head.size());
  at_ = decoded.end();
  expected_bytes_ = at_ + kPackEndBytes;
  for (const PackedSegment& segment : head_.segments) {
    const uint64_t record_bytes = segment.record_bytes();  // below 2^58
    if (expected_bytes_ > (uint64_t(1) << 62)) fail(ErrorCode::store_invalid, path_, ": expected segments that a file can hold, found more");
    expected_bytes_ += record_bytes;
  }
}

PackReader::~PackReader() = default;

void PackReader::require_layouts(const std::function<SegmentLayout(int n_tokens)>& layout_of) const {
  for (const PackedSegment& segment : head_.segments) {
    if (segment.layout != layout_of(segment.layout.n_tokens)) fail(ErrorCode::store_invalid, path_, ": expected segments of this model, found one of another: ", segment_key_text(segment.key));
  }
}

std::vector<PackReader::Segment> PackReader::read(uint64_t max_bytes) {
  records_.clear();
  std::vector<Segment> segments;
  for (uint64_t n_bytes = 0; next_ < head_.segments.size() && n_bytes < max_bytes; ++next_) {
    const PackedSegment& packed = head_.segments[next_];
    const uint64_t size = packed.record_bytes();
    Segment& segment = segments.emplace_back();
    segment.index = next_;
    const uint64_t begin = at_;
    at_ += size;
    try {
      // Before room is taken for it.
      if (at_ > bytes_) fail(ErrorCode::store_invalid, path_, ": expected ", size, " bytes at byte ", begin, ", found the end at ", bytes_);
      Record record{next_, Aligned<uint8_t>::uninitialized(size_t(size)), {}};
      n_bytes += size;
      file_->read(begin, record.bytes.data(), record.bytes.size());
      sum_->add(record.bytes.data(), record.bytes.size());
      const SegmentRecord checked(record.bytes.data(), packed.key, packed.layout, packed.n_header_tokens, path_);
      checked.check_image();
      record.tokens = segment.tokens = checked.tokens();
      records_.push_back(std::move(record));
    } catch (const EngineError& error) {
      if (error.code() != ErrorCode::store_invalid) throw;
      segment.damage = error.what();
      all_sound_ = false;
    }
  }
  return segments;
}

void PackReader::add_to(Store& store, size_t index) const {
  const auto record = std::find_if(records_.begin(), records_.end(), [&](const Record& record) { return record.index == index; });
  if (record == records_.end()) fail(ErrorCode::invalid_argument, "expected a sound segment of those read last, found ", index);
  const PackedSegment& packed = head_.segments[index];
  SegmentHeader header;
  header.key = packed.key;
  header.layout = packed.layout;
  header.n_header_tokens = packed.n_header_tokens;
  header.tokens = record->tokens;
  store.add(header, record->bytes.data() + segment_front_bytes(packed.layout));
}

std::string PackReader::damage_of_the_rest() const {
  CHECK(next_ == head_.segments.size());
  if (bytes_ != expected_bytes_) return path_ + ": expected " + std::to_string(expected_bytes_) + " bytes, found " + std::to_string(bytes_);
  if (!all_sound_) return "";
  std::string end(kPackEndBytes, '\0');
  file_->read(at_, end.data(), end.size());
  return end == encode_pack_end(at_, sum_->digest()) ? "" : path_ + ": the checksum at its end differs";
}

}  // namespace sala
