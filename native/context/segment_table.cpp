#include "native/context/segment_table.h"

#include <algorithm>

namespace sala {

namespace {

constexpr size_t kRecentImages = 32;

size_t keys_bytes(const std::vector<SegmentFile::Keys>& keys) {
  size_t n = 0;
  for (const SegmentFile::Keys& k : keys) n += k.rows.size() + sizeof(float) * k.scales.size();
  return n;
}

}  // namespace

SegmentTable::SegmentTable(const ModelConfig& config, KvForm form, std::string folder, std::optional<ReadingKeys> reading)
    : config_(config), form_(form), folder_(std::move(folder)), reading_(std::move(reading)) {}

const SegmentTable::Segment& SegmentTable::get(int handle) const {
  const auto at = by_handle_.find(handle);
  if (at == by_handle_.end()) fail(ErrorCode::invalid_argument, "expected the handle of a segment in memory, found ", handle);
  return at->second;
}

int SegmentTable::insert(Segment segment) {
  segment.n_references = 1;
  reading_key_bytes_ += keys_bytes(segment.keys);
  if (segment.resident) image_bytes_ += segment.resident->size();
  const SegmentKey key = segment.key;
  by_handle_.emplace(next_handle_, std::move(segment));
  by_key_[key] = next_handle_;
  return next_handle_++;
}

int SegmentTable::acquire(const SegmentKey& key) {
  const auto at = by_key_.find(key);
  if (at == by_key_.end()) return -1;
  ++get(at->second).n_references;
  return at->second;
}

void SegmentTable::set_aside(const std::string& path) const { rename_file(path, path + ".damaged"); }

int SegmentTable::open(const SegmentKey& key, std::optional<ErrorCode>& refused) {
  refused.reset();
  if (const int handle = acquire(key); handle >= 0) return handle;
  if (folder_.empty()) return -1;
  const std::string path = segment_path(folder_, key);
  if (!is_regular_file(path)) return -1;
  try {
    const SegmentFile file(path, key, config_, form_);
    Segment segment;
    segment.key = key;
    segment.layout = file.header().layout;
    segment.n_header_tokens = file.header().n_header_tokens;
    if (reading_) {
      for (int head : reading_->kv_heads) segment.keys.push_back(file.keys(reading_->sparse_layer, head));
    }
    return insert(std::move(segment));
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::store_invalid && error.code() != ErrorCode::store_newer) throw;
    if (error.code() == ErrorCode::store_invalid) set_aside(path);
    refused = error.code();
    return -1;
  }
}

SegmentTable::Added SegmentTable::add(SegmentHeader header, Aligned<uint8_t> image) {
  Added added{-1, std::nullopt};
  // Two jobs may have run the same segment; the bytes are equal.
  added.handle = acquire(header.key);
  if (added.handle >= 0) return added;
  Segment segment;
  segment.key = header.key;
  segment.layout = header.layout;
  segment.n_header_tokens = header.n_header_tokens;
  bool in_file = false;
  if (!folder_.empty()) {
    const std::string path = segment_path(folder_, header.key);
    try {
      write_segment_file(path, header, image.data());
      in_file = true;
    } catch (const EngineError& error) {
      added.store_failure = error;  // a full or read-only disk loses nothing that is in memory
    }
  }
  const SegmentLayout& layout = header.layout;
  if (reading_ && in_file) {
    for (int head : reading_->kv_heads) {
      const uint8_t* run = image.data() + layout.run_bytes * (size_t(reading_->sparse_layer) * layout.n_kv_heads + head);
      SegmentFile::Keys keys{Aligned<uint8_t>(layout.element_bytes() * size_t(layout.n_tokens) * layout.head_dim), {}};
      std::copy_n(run, keys.rows.size(), keys.rows.data());
      if (layout.form == KvForm::int8) {
        keys.scales = Aligned<float>(layout.n_tokens);
        std::copy_n(reinterpret_cast<const float*>(run + layout.k_scales), layout.n_tokens, keys.scales.data());
      }
      segment.keys.push_back(std::move(keys));
    }
  }
  if (!in_file) segment.resident = std::make_shared<Aligned<uint8_t>>(std::move(image));
  added.handle = insert(std::move(segment));
  return added;
}

void SegmentTable::forget_key(const Segment& segment, int handle) noexcept {
  const auto at = by_key_.find(segment.key);
  if (at != by_key_.end() && at->second == handle) by_key_.erase(at);
}

void SegmentTable::release(int handle) noexcept {
  const auto at = by_handle_.find(handle);
  if (at == by_handle_.end()) return;
  const Segment& segment = at->second;
  if (--at->second.n_references > 0) return;
  reading_key_bytes_ -= keys_bytes(segment.keys);
  if (segment.resident) image_bytes_ -= segment.resident->size();
  forget_key(segment, handle);
  by_handle_.erase(at);
}

SegmentImage SegmentTable::image(int handle) {
  Segment& segment = get(handle);
  if (segment.resident) return {segment.resident, segment.resident->data()};
  if (std::shared_ptr<const void> owner = segment.mapped.lock()) return {owner, segment.mapped_bytes};
  const std::string path = segment_path(folder_, segment.key);
  SegmentImage image;
  try {
    image = SegmentFile::map(SegmentFile(path, segment.key, config_, form_));
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::store_invalid && error.code() != ErrorCode::store_newer) throw;
    if (error.code() == ErrorCode::store_invalid) set_aside(path);
    forget_key(segment, handle);  // the next one who asks for this address encodes it again
    // To those who have the segment in view it is all the same whether it was damaged or replaced by a newer engine.
    throw EngineError(ErrorCode::store_invalid, error.what());
  }
  segment.mapped = image.owner;
  segment.mapped_bytes = image.bytes;
  recent_.push_front(image);
  if (recent_.size() > kRecentImages) recent_.pop_back();
  return image;
}

ViewSegment SegmentTable::view(int handle, int n_hidden) const {
  const Segment& segment = get(handle);
  if (n_hidden < 0 || n_hidden > segment.layout.n_tokens) {
    fail(ErrorCode::invalid_argument, "expected 0 to ", segment.layout.n_tokens, " hidden tokens, found ", n_hidden);
  }
  return {segment.layout, n_hidden};
}

ReadSpan SegmentTable::reading_keys(int handle, int sparse_layer, int kv_head, std::vector<SegmentImage>& hold) {
  Segment& segment = get(handle);
  if (!segment.keys.empty() && reading_->sparse_layer == sparse_layer) {
    const auto at = std::find(reading_->kv_heads.begin(), reading_->kv_heads.end(), kv_head);
    if (at != reading_->kv_heads.end()) {
      const SegmentFile::Keys& keys = segment.keys[at - reading_->kv_heads.begin()];
      const int skipped = std::min(segment.n_header_tokens, segment.layout.n_tokens);
      return {keys.rows.data() + segment.layout.element_bytes() * size_t(segment.layout.head_dim) * skipped,
              keys.scales.empty() ? nullptr : keys.scales.data() + skipped, segment.layout.n_tokens - skipped};
    }
  }
  hold.push_back(image(handle));
  return SegmentKv(segment.layout, hold.back()).keys(sparse_layer, kv_head, segment.n_header_tokens);
}

}  // namespace sala
