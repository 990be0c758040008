#include "native/context/segment_table.h"

#include <algorithm>

namespace sala {

SegmentTable::SegmentTable(const ModelConfig& config, KvForm form, std::shared_ptr<Store> store, std::optional<ReadingKeys> reading)
    : config_(config), form_(form), store_(std::move(store)), reading_(std::move(reading)) {}

SegmentTable::~SegmentTable() {
  // The store may live on.
  for (const auto& [handle, segment] : by_handle_) {
    if (segment.acquired) store_->release(segment.key);
  }
}

const SegmentTable::Segment& SegmentTable::get(int handle) const {
  const auto at = by_handle_.find(handle);
  if (at == by_handle_.end()) fail(ErrorCode::invalid_argument, "expected the handle of a segment in memory, found ", handle);
  return at->second;
}

int SegmentTable::insert(Segment segment) {
  segment.n_references = 1;
  reading_key_bytes_ += segment.keys.size();
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

Aligned<uint8_t> SegmentTable::gathered_keys(const SegmentLayout& layout, const uint8_t* image) const {
  Aligned<uint8_t> keys(reading_keys_bytes(layout, *reading_));
  for (size_t head = 0; head < reading_->kv_heads.size(); ++head) {
    std::copy_n(image + reading_keys_offset(layout, *reading_, head), layout.v, keys.data() + layout.v * head);
  }
  return keys;
}

int SegmentTable::open(const SegmentKey& key) {
  if (const int handle = acquire(key); handle >= 0) return handle;
  const std::optional<SegmentInfo> info = store_ ? store_->acquire(key) : std::nullopt;
  if (!info) return -1;
  try {
    Segment segment;
    segment.key = key;
    segment.layout = segment_layout(config_, form_, info->layout.n_tokens);
    segment.n_header_tokens = info->n_header_tokens;
    segment.acquired = true;
    if (segment.layout != info->layout) fail(ErrorCode::store_invalid, "segment ", segment_key_text(key), ": of another model");
    if (reading_) segment.keys = store_->read_keys(key);
    return insert(std::move(segment));
  } catch (const EngineError& error) {
    store_->release(key);
    if (error.code() != ErrorCode::store_invalid) throw;
    store_->remove({key});
    return -1;
  } catch (...) {
    store_->release(key);
    throw;
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
  if (store_) {
    if (reading_) segment.keys = gathered_keys(header.layout, image.data());
    try {
      store_->add(header, image.data());
      segment.acquired = true;
    } catch (const EngineError& error) {
      added.store_failure = error;  // a full or read-only disk loses nothing that is in memory
      segment.tokens = std::move(header.tokens);
    }
  }
  if (!segment.acquired) segment.resident = std::make_shared<Aligned<uint8_t>>(std::move(image));
  added.handle = insert(std::move(segment));
  if (added.store_failure) refused_.push_back(added.handle);
  return added;
}

bool SegmentTable::keep_one() {
  while (!refused_.empty()) {
    const auto at = by_handle_.find(refused_.back());
    if (at == by_handle_.end()) {
      refused_.pop_back();
      continue;
    }
    Segment& segment = at->second;
    store_->add({segment.key, segment.layout, segment.n_header_tokens, segment.tokens}, segment.resident->data());
    segment.acquired = true;
    image_bytes_ -= segment.resident->size();
    segment.resident.reset();  // a view that has it keeps it
    segment.tokens = {};
    refused_.pop_back();
    return true;
  }
  return false;
}

uint64_t SegmentTable::refused_bytes() const {
  uint64_t n_bytes = 0;
  for (int handle : refused_) {
    const auto at = by_handle_.find(handle);
    if (at != by_handle_.end()) n_bytes += store_->needed_bytes(at->second.layout);
  }
  return n_bytes;
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
  reading_key_bytes_ -= segment.keys.size();
  if (segment.resident) image_bytes_ -= segment.resident->size();
  if (segment.acquired) store_->release(segment.key);
  const auto recent = std::find_if(recent_.begin(), recent_.end(), [&](const auto& known) { return known.first == handle; });
  if (recent != recent_.end()) drop_recent(recent);
  forget_key(segment, handle);
  by_handle_.erase(at);
}

SegmentImage SegmentTable::image(int handle) {
  Segment& segment = get(handle);
  if (segment.resident) return {segment.resident, segment.resident->data()};
  if (std::shared_ptr<const void> owner = segment.mapped.lock()) {
    SegmentImage image{std::move(owner), segment.mapped_bytes};
    keep_recent(handle, image);
    return image;
  }
  SegmentImage image;
  try {
    image = store_->map(segment.key);
  } catch (const EngineError& error) {
    if (error.code() == ErrorCode::store_invalid) forget_key(segment, handle);
    throw;
  }
  segment.mapped = image.owner;
  segment.mapped_bytes = image.bytes;
  keep_recent(handle, image);
  return image;
}

void SegmentTable::keep_recent(int handle, const SegmentImage& image) {
  const auto known = std::find_if(recent_.begin(), recent_.end(), [&](const auto& recent) { return recent.first == handle; });
  if (known != recent_.end()) return recent_.splice(recent_.begin(), recent_, known);
  recent_.emplace_front(handle, image);
  recent_bytes_ += get(handle).layout.image_bytes();
  while (recent_bytes_ > kRecentBytes && recent_.size() > 1) drop_recent(std::prev(recent_.end()));
}

void SegmentTable::drop_recent(std::list<std::pair<int, SegmentImage>>::iterator at) noexcept {
  recent_bytes_ -= by_handle_.find(at->first)->second.layout.image_bytes();
  recent_.erase(at);
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
  const SegmentLayout& layout = segment.layout;
  if (segment.keys.size() > 0 && reading_->sparse_layer == sparse_layer) {
    const auto at = std::find(reading_->kv_heads.begin(), reading_->kv_heads.end(), kv_head);
    if (at != reading_->kv_heads.end()) {
      // As the beginning of a run: K, then its scales.
      const uint8_t* keys = segment.keys.data() + layout.v * size_t(at - reading_->kv_heads.begin());
      const int skipped = std::min(segment.n_header_tokens, layout.n_tokens);
      const float* scales = layout.form == KvForm::int8 ? reinterpret_cast<const float*>(keys + layout.k_scales) + skipped : nullptr;
      return {keys + layout.element_bytes() * size_t(layout.head_dim) * skipped, scales, layout.n_tokens - skipped};
    }
  }
  hold.push_back(image(handle));
  return SegmentKv(layout, hold.back()).keys(sparse_layer, kv_head, segment.n_header_tokens);
}

}  // namespace sala
