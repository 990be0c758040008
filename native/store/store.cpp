#include "native/store/store.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <chrono>
#include <thread>

namespace sala {

namespace {

constexpr const char* kCurrent = "CURRENT";
constexpr const char* kCurrentTemporary = "CURRENT.tmp";
// What a segment takes in a log or a MANIFEST, about; what a record takes beside key and value.
constexpr uint64_t kSegmentEntryBytes = 104, kRecordEntryBytes = 16;
// CURRENT and the lock, each a block of any file system.
constexpr uint64_t kSmallFiles = 8192;
constexpr uint64_t kKeysBorder = 4096;

uint64_t up_to(uint64_t border, uint64_t bytes) { return (bytes + border - 1) / border * border; }

std::string identity_text(const std::string& identity, const std::optional<ReadingKeys>& reading) {
  std::string text = identity;
  if (!reading) return text;
  text += "\nreading keys of sparse layer " + std::to_string(reading->sparse_layer) + ", heads";
  for (int head : reading->kv_heads) text += " " + std::to_string(head);
  return text;
}

}  // namespace

// The changes of one commit, and what else has to be durable with them.
struct Store::Commit {
  StoreChanges changes;
  Before before;
  uint64_t pending_bytes = 0;
  bool is_checkpoint = false;
  uint64_t sequence = 0;
  std::string manifest;                              // of a checkpoint: its bytes
  uint64_t number = 0, wal_number = 0, old_wal = 0;  // of a checkpoint
  std::vector<FilePtr> unflushed, empty;
  bool folder_unflushed = false;
};

// ---- opening --------------------------------------------------------------------------------------------------------

Store::Store(FileSystem& files, std::string folder, const std::string& identity, StoreOptions options)
    : files_(files), folder_(std::move(folder)), options_(std::move(options)) {
  open(identity_text(identity, options_.reading));
}

Store::~Store() = default;

void Store::open(const std::string& identity) {
  try {
    files_.make_folder(folder_);
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.lock_wait_ms);
    while (!(lock_ = files_.lock(path("LOCK"))) && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  } catch (const EngineError& error) {
    if (!files_.size(path(kCurrent))) throw;
    read_only_ = error.what();  // one that nobody can write is read
  }
  if (!lock_ && !read_only_) fail(ErrorCode::store_unwritable, folder_, ": expected a store that no other process has open, found one that has");
  const std::vector<std::string> names = files_.list(folder_);
  std::vector<uint64_t> manifests;
  for (const std::string& name : names) {
    const auto parsed = parse_store_file_name(name);
    if (!parsed) continue;
    state_.next_number = std::max(state_.next_number, parsed->number + 1);
    if (parsed->kind == StoreFileName::Kind::manifest) manifests.push_back(parsed->number);
  }
  // The one that CURRENT names; where that is damaged, the newest that is sound.
  std::sort(manifests.rbegin(), manifests.rend());
  std::optional<uint64_t> current;
  if (files_.size(path(kCurrent))) {
    try {
      current = decode_current(read_whole(kCurrent));
    } catch (const EngineError& error) {
      note(error.what());
    }
    if (!current) note("CURRENT: damaged");
    else {
      std::erase(manifests, *current);
      manifests.insert(manifests.begin(), *current);
    }
  }
  bool found = false;
  for (size_t i = 0; i < manifests.size() && !found; ++i) found = load_manifest(manifests[i], identity);
  if (!found) {
    const uint64_t next_number = state_.next_number;
    state_ = StoreState{};
    state_.next_number = next_number;
    state_.identity = identity;
  } else {
    load_wal();
    if (current != manifest_) wal_.reset();  // only a checkpoint makes a CURRENT
  }
  load_segment_files();
  if (!read_only_) remove_orphans(names);
}

std::string Store::read_whole(const std::string& name) const {
  const auto size = files_.size(path(name));
  if (!size) fail(ErrorCode::store_invalid, path(name), ": expected a file, found none");
  if (*size > options_.max_bytes && *size > (uint64_t(1) << 32)) fail(ErrorCode::store_invalid, path(name), ": expected a smaller file, found ", *size, " bytes");
  std::string bytes(size_t(*size), '\0');
  files_.open_read(path(name))->read(0, bytes.data(), bytes.size());
  return bytes;
}

bool Store::load_manifest(uint64_t number, const std::string& identity) {
  const std::string name = manifest_name(number);
  try {
    const std::string bytes = read_whole(name);
    StoreState state = decode_manifest(bytes, path(name));
    if (state.identity != identity) {
      note(name + ": of another model; begun anew");
      return false;
    }
    state.next_number = std::max({state.next_number, state_.next_number, number + 1, state.wal + 1});
    state_ = std::move(state);
    manifest_ = number;
    manifest_bytes_ = bytes.size();
    return true;
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::store_invalid) throw;
    note(error.what());
    return false;
  }
}

void Store::load_wal() {
  const std::string name = wal_name(state_.wal);
  size_t sound = 0;
  try {
    const std::string bytes = read_whole(name);
    sound = replay_wal(bytes, state_.wal, state_, path(name));
    if (sound == 0) note(name + ": damaged");
    else if (sound < bytes.size()) note(name + ": " + std::to_string(bytes.size() - sound) + " bytes behind the last whole commit dropped");
    wal_bytes_ = bytes.size();
    if (read_only_ || sound == 0) return;
    auto wal = files_.open_append(path(name));
    if (wal->size() > sound) {
      // Durable before anything is written behind it: an old record must never follow a new one.
      wal->truncate(sound);
      wal->sync();
    }
    wal->reserve(log_room());
    wal_ = std::move(wal);
    wal_bytes_ = sound;
  } catch (const EngineError& error) {
    // Then the next commit begins a new one.
    note(error.what());
  }
}

void Store::load_segment_files() {
  std::map<uint64_t, uint64_t> ends;
  for (const auto& [key, segment] : state_.segments) ends[segment.file] = std::max(ends[segment.file], segment.end());
  for (const auto& [number, end] : ends) {
    auto file = std::make_shared<File>();
    file->number = number;
    file->path = path(segment_file_name(number));
    const uint64_t size = files_.size(file->path).value_or(0);
    const auto sealed = state_.sealed.find(number);
    file->sealed = sealed != state_.sealed.end();
    file->bytes = file->sealed ? size : std::min(size, end);
    if (file->sealed && size != sealed->second.bytes) {
      note(file->path + ": expected " + std::to_string(sealed->second.bytes) + " bytes, found " + std::to_string(size));
      file->suspect = true;
    }
    segment_files_[number] = file;
    state_.next_number = std::max(state_.next_number, number + 1);
    if (!file->sealed && !has_header(*file)) {
      note(file->path + ": expected the header of segment file " + std::to_string(number) + ", found something else");
      file->suspect = true;  // its records are as sound as their checksums say
    }
    if (file->sealed || read_only_ || file->suspect) continue;
    try {
      file->writer = files_.open_append(file->path);
      // What was not committed goes; durable with the next commit to it, and until then as good as gone.
      if (file->writer->size() > file->bytes) file->writer->truncate(file->bytes);
    } catch (const EngineError& error) {
      note(error.what());
    }
    if (file->writer) {
      file->bytes = file->writer->size();
      file->unflushed = true;
      growing_ = number;
    }
  }
  // A number that the log knows as sealed must not come back as that of a file that grows.
  for (const auto& [number, sealed] : state_.sealed) state_.next_number = std::max(state_.next_number, number + 1);
  std::erase_if(state_.sealed, [&](const auto& sealed) { return !segment_files_.count(sealed.first); });
  std::vector<SegmentKey> lost;
  const std::map<SegmentKey, StoredSegment> segments = std::exchange(state_.segments, {});
  for (const auto& [key, segment] : segments) {
    const File& file = file_of(segment);
    const uint64_t keys = segment.keys_offset == 0 || !options_.reading ? 0 : segment.keys_offset + reading_keys_bytes(segment.layout, *options_.reading);
    place(key, segment);
    if (segment.end() > file.bytes || keys > file.bytes || !has_reading_keys(segment.layout)) lost.push_back(key);
  }
  for (const SegmentKey& key : lost) change(key, std::nullopt);
  if (!lost.empty()) note(std::to_string(lost.size()) + " segments dropped, whose files are cut or gone");
  for (const auto& table : state_.tables) {
    for (const auto& [key, value] : table) record_bytes_ += kRecordEntryBytes + key.size() + value.size();
  }
}

bool Store::has_reading_keys(const SegmentLayout& layout) const {
  if (!options_.reading) return true;
  const auto& heads = options_.reading->kv_heads;
  return options_.reading->sparse_layer < layout.n_sparse_layers && std::all_of(heads.begin(), heads.end(), [&](int head) { return head < layout.n_kv_heads; });
}

bool Store::has_header(const File& file) const {
  std::string header(kSegmentFileHeaderBytes, '\0');
  if (file.bytes < header.size()) return false;
  try {
    files_.open_read(file.path)->read(0, header.data(), header.size());
  } catch (const EngineError&) {
    return false;
  }
  return is_segment_file_header(header, file.number);
}

void Store::remove_orphans(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto parsed = parse_store_file_name(name);
    bool orphan = name == kCurrentTemporary;
    if (parsed) {
      switch (parsed->kind) {
        case StoreFileName::Kind::manifest: orphan = parsed->number != manifest_; break;
        case StoreFileName::Kind::wal: orphan = parsed->number != state_.wal; break;
        case StoreFileName::Kind::segments: orphan = !segment_files_.count(parsed->number); break;
      }
    }
    if (!orphan) continue;
    remove_quietly(path(name));
  }
}

bool Store::remove_quietly(const std::string& path) {
  try {
    files_.remove(path);
    return true;
  } catch (const EngineError& error) {
    note(error.what());
    return false;
  }
}

// ---- bookkeeping, with mutex_ held ----------------------------------------------------------------------------------

void Store::place(const SegmentKey& key, const std::optional<StoredSegment>& segment) {
  const auto at = state_.segments.find(key);
  if (at != state_.segments.end()) {
    File& file = file_of(at->second);
    file.live_bytes -= at->second.record_bytes();
    file.live_keys_bytes -= keys_bytes(at->second.layout);
    --file.n_live;
    if (!segment) state_.segments.erase(at);
  }
  if (!segment) return;
  File& file = file_of(*segment);
  file.live_bytes += segment->record_bytes();
  file.live_keys_bytes += keys_bytes(segment->layout);
  ++file.n_live;
  state_.segments[key] = *segment;
}

void Store::change(const SegmentKey& key, const std::optional<StoredSegment>& segment) {
  if (!pending_.segments.count(key)) {
    const auto at = state_.segments.find(key);
    before_pending_[key] = at == state_.segments.end() ? std::nullopt : std::optional(at->second);
  }
  place(key, segment);
  pending_.segments[key] = segment;
  pending_bytes_ += kSegmentEntryBytes;
}

void Store::set_record(StoreTable table, const std::string& key, std::optional<std::string> value) {
  auto& records = state_.tables[size_t(table)];
  const auto at = records.find(key);
  if (at != records.end()) {
    if (value && *value == at->second) return;
    record_bytes_ -= kRecordEntryBytes + key.size() + at->second.size();
  } else if (!value) {
    return;
  }
  pending_bytes_ += kRecordEntryBytes + key.size() + (value ? value->size() : 0);
  if (value) {
    record_bytes_ += kRecordEntryBytes + key.size() + value->size();
    records[key] = *value;
  } else {
    records.erase(at);
  }
  pending_.tables[size_t(table)][key] = std::move(value);
}

// What was appended to a file and could not be flushed may be anything once it leaves the page cache.
void Store::revert_unflushed(File& file) {
  size_t n_lost = 0;
  for (auto at = pending_.segments.begin(); at != pending_.segments.end();) {
    if (!at->second || at->second->file != file.number) {
      ++at;
      continue;
    }
    const auto before = before_pending_.find(at->first);
    place(at->first, before->second);
    before_pending_.erase(before);
    at = pending_.segments.erase(at);
    ++n_lost;
  }
  file.unflushed = false;
  file.suspect = true;
  if (growing_ == file.number) growing_ = 0;
  findings_.push_back(file.path + ": could not be flushed; " + std::to_string(n_lost) + " segments dropped");
}

void Store::put_back(Commit& commit) {
  // Newer changes win; what was committed is what it was before the older ones.
  for (auto& [key, segment] : commit.changes.segments) pending_.segments.try_emplace(key, segment);
  for (auto& [key, segment] : commit.before) before_pending_[key] = segment;
  pending_.sealed.merge(commit.changes.sealed);
  for (size_t i = 0; i < kStoreTables; ++i) pending_.tables[i].merge(commit.changes.tables[i]);
  pending_bytes_ += commit.pending_bytes;
  for (const FilePtr& file : commit.unflushed) file->unflushed = true;
  folder_unflushed_ |= commit.folder_unflushed;
  state_.sequence = commit.sequence - 1;
  if (commit.is_checkpoint) state_.wal = commit.old_wal;
}

uint64_t Store::used_bytes() const {
  uint64_t bytes = kSmallFiles + wal_bytes_ + manifest_bytes_;
  for (const auto& [number, file] : segment_files_) bytes += file->bytes;
  return bytes;
}

// What will be written without being asked for: the log of what is pending, the next MANIFEST, reading keys of files to be sealed.
uint64_t Store::reserved_bytes() const {
  uint64_t bytes = std::max(pending_bytes_, log_room()) + record_bytes_ + kSegmentEntryBytes * state_.segments.size() + 64 * segment_files_.size() + 1024;
  for (const auto& [number, file] : segment_files_) {
    if (!file->sealed) bytes += file->live_keys_bytes + kKeysBorder;
  }
  return bytes;
}

void Store::note(std::string line) {
  std::lock_guard lock(mutex_);
  findings_.push_back(std::move(line));
}

std::vector<std::string> Store::take_findings() {
  std::lock_guard lock(mutex_);
  return std::exchange(findings_, {});
}

void Store::require_writable() const {
  if (read_only_) fail(ErrorCode::store_unwritable, *read_only_);
}

// ---- segments -------------------------------------------------------------------------------------------------------

std::optional<SegmentInfo> Store::find(const SegmentKey& key) const {
  std::lock_guard lock(mutex_);
  const auto at = state_.segments.find(key);
  if (at == state_.segments.end()) return std::nullopt;
  return SegmentInfo{at->second.layout, at->second.n_header_tokens};
}

std::optional<SegmentInfo> Store::acquire(const SegmentKey& key) {
  std::lock_guard lock(mutex_);
  const auto at = state_.segments.find(key);
  if (at == state_.segments.end()) return std::nullopt;
  ++acquired_[key];
  return SegmentInfo{at->second.layout, at->second.n_header_tokens};
}

void Store::release(const SegmentKey& key) noexcept {
  std::lock_guard lock(mutex_);
  const auto at = acquired_.find(key);
  if (at != acquired_.end() && --at->second == 0) acquired_.erase(at);
}

void Store::add(const SegmentHeader& header, const uint8_t* image) {
  require_writable();
  if (!is_plausible(header.layout, header.n_header_tokens) || header.tokens.size() != size_t(header.layout.n_tokens)) {
    fail(ErrorCode::invalid_argument, "expected a segment with tokens and a header within them, found ", header.tokens.size(), " tokens");
  }
  if (!has_reading_keys(header.layout)) fail(ErrorCode::invalid_argument, "expected a segment with the layer and the heads that are read, found one of another model");
  if (acquire(header.key)) return;
  const SegmentFront front = segment_front(header, image);
  StoredSegment segment;
  segment.layout = header.layout;
  segment.n_header_tokens = header.n_header_tokens;
  segment.front_checksum = front.checksum;
  if (options_.reading) segment.keys_checksum = reading_keys_checksum(header.layout, *options_.reading, image);
  std::lock_guard appending(append_mutex_);
  {
    std::lock_guard lock(mutex_);
    const uint64_t needed = needed_bytes(header.layout);
    if (!fits(needed)) {
      fail(ErrorCode::store_full, folder_, ": expected room for ", needed, " bytes below the cap of ", options_.max_bytes, ", found ", used_bytes(), " in use");
    }
  }
  append({{front.bytes.data(), front.bytes.size()}, {image, header.layout.image_bytes()}}, segment);
  std::lock_guard lock(mutex_);
  change(header.key, segment);
  ++acquired_[header.key];
}

uint64_t Store::needed_bytes(const SegmentLayout& layout) const {
  // The record; its keys once more when the file is sealed; its place in the log and in the next MANIFEST; perhaps a new file.
  return segment_record_bytes(layout) + keys_bytes(layout) + 2 * kSegmentEntryBytes + kSegmentFileHeaderBytes + kKeysBorder;
}

Store::FilePtr Store::growing_file() {
  {
    std::lock_guard lock(mutex_);
    const auto at = segment_files_.find(growing_);
    if (at != segment_files_.end() && at->second->writer && at->second->bytes < segment_file_bytes()) return at->second;
    growing_ = 0;
  }
  auto file = std::make_shared<File>();
  {
    std::lock_guard lock(mutex_);
    file->number = state_.next_number++;
  }
  file->path = path(segment_file_name(file->number));
  file->writer = files_.open_append(file->path);
  const std::string header = encode_segment_file_header(file->number);
  try {
    file->writer->append({{header.data(), header.size()}});
  } catch (const EngineError&) {
    remove_quietly(file->path);
    throw;
  }
  file->bytes = file->writer->size();
  std::lock_guard lock(mutex_);
  folder_unflushed_ = true;
  growing_ = file->number;
  segment_files_[file->number] = file;
  return file;
}

void Store::append(const std::vector<Bytes>& record, StoredSegment& segment) {
  static constexpr uint8_t kZeros[64] = {};
  const FilePtr file = growing_file();
  const uint64_t before = file->writer->size(), offset = up_to(64, before);
  std::vector<Bytes> parts{{kZeros, size_t(offset - before)}};
  parts.insert(parts.end(), record.begin(), record.end());
  try {
    file->writer->append(parts);
  } catch (const EngineError&) {
    // What is left of it is only waste.
    try {
      file->writer->truncate(before);
    } catch (const EngineError&) {
    }
    std::lock_guard lock(mutex_);
    file->bytes = file->writer->size();
    throw;
  }
  segment.file = file->number;
  segment.offset = offset;
  segment.keys_offset = 0;
  std::lock_guard lock(mutex_);
  file->bytes = file->writer->size();
  file->unflushed = true;
}

std::optional<StoredSegment> Store::locate(const SegmentKey& key, FilePtr& file) const {
  std::lock_guard lock(mutex_);
  const auto at = state_.segments.find(key);
  if (at == state_.segments.end()) return std::nullopt;
  file = segment_files_.at(at->second.file);
  return at->second;
}

FileBytes Store::bytes_of(File& file, uint64_t begin, uint64_t end) const {
  std::lock_guard lock(file.mapping_mutex);
  auto owner = file.mapping.lock();
  if (!owner || file.mapped.size < end) {
    FileBytes mapped = files_.open_read(file.path)->map();
    if (mapped.size < end) fail(ErrorCode::store_invalid, file.path, ": expected at least ", end, " bytes, found ", mapped.size);
    owner = std::move(mapped.owner);
    file.mapping = owner;
    file.mapped = {nullptr, mapped.data, mapped.size, mapped.let_go};
  }
  FileBytes bytes{nullptr, file.mapped.data, file.mapped.size};
  const void* mapping = owner.get();
  bytes.owner = {mapping, [owner = std::move(owner), let_go = file.mapped.let_go, begin, end](const void*) mutable {
                   if (let_go) let_go(begin, end - begin);
                   owner.reset();  // who still remembers this weakly must not keep the mapping
                 }};
  return bytes;
}

SegmentRecord Store::record_of(const FileBytes& bytes, const File& file, const SegmentKey& key, const StoredSegment& segment) const {
  SegmentRecord record(bytes.data + segment.offset, key, segment.layout, segment.n_header_tokens, file.path);
  if (record.front_checksum() != segment.front_checksum) fail(ErrorCode::store_invalid, file.path, ": expected another segment at byte ", segment.offset);
  record.check_image();
  return record;
}

Aligned<uint8_t> Store::keys_of(File& file, const StoredSegment& segment) const {
  const ReadingKeys& reading = *options_.reading;
  const SegmentLayout& layout = segment.layout;
  std::shared_ptr<ReadableFile> reader;
  {
    std::lock_guard lock(reader_mutex_);
    if (last_reader_.first != file.number) last_reader_ = {file.number, files_.open_read(file.path)};
    reader = last_reader_.second;
  }
  auto keys = Aligned<uint8_t>::uninitialized(reading_keys_bytes(layout, reading));
  if (segment.keys_offset != 0) {
    reader->read(segment.keys_offset, keys.data(), keys.size());
  } else {
    const uint64_t image = segment.offset + segment_front_bytes(layout);
    for (size_t head = 0; head < reading.kv_heads.size(); ++head) reader->read(image + reading_keys_offset(layout, reading, head), keys.data() + layout.v * head, layout.v);
  }
  if (gathered_keys_checksum(keys.data(), keys.size()) != segment.keys_checksum) fail(ErrorCode::store_invalid, file.path, ": checksum of the reading keys differs");
  return keys;
}

template <class Use>
auto Store::with_segment(const SegmentKey& key, const Use& use) {
  for (;;) {
    FilePtr file;
    const auto segment = locate(key, file);
    if (!segment) fail(ErrorCode::store_invalid, folder_, ": expected segment ", segment_key_text(key), ", found none");
    try {
      return use(*file, *segment);
    } catch (const EngineError& error) {
      if (error.code() != ErrorCode::store_invalid) throw;
      const auto now = locate(key, file);
      if (now && !(now->is_at(*segment) && now->keys_offset == segment->keys_offset)) continue;
      drop(key, *segment, error.what());
      throw;
    }
  }
}

void Store::drop(const SegmentKey& key, const StoredSegment& segment, const std::string& why) {
  std::lock_guard lock(mutex_);
  const auto at = state_.segments.find(key);
  if (at == state_.segments.end() || !at->second.is_at(segment)) return;
  file_of(segment).suspect = true;
  change(key, std::nullopt);
  findings_.push_back("segment " + segment_key_text(key) + " dropped: " + why);
}

SegmentImage Store::map(const SegmentKey& key) {
  return with_segment(key, [&](File& file, const StoredSegment& segment) {
    const FileBytes bytes = bytes_of(file, segment.offset, segment.end());
    return SegmentImage{bytes.owner, record_of(bytes, file, key, segment).image()};
  });
}

FileBytes Store::record(const SegmentKey& key) {
  return with_segment(key, [&](File& file, const StoredSegment& segment) {
    const FileBytes bytes = bytes_of(file, segment.offset, segment.end());
    record_of(bytes, file, key, segment);
    return FileBytes{bytes.owner, bytes.data + segment.offset, size_t(segment.record_bytes())};
  });
}

std::vector<int32_t> Store::tokens(const SegmentKey& key) {
  return with_segment(key, [&](File& file, const StoredSegment& segment) {
    const FileBytes bytes = bytes_of(file, segment.offset, segment.end());
    return record_of(bytes, file, key, segment).tokens();
  });
}

Aligned<uint8_t> Store::read_keys(const SegmentKey& key) {
  CHECK(options_.reading.has_value());
  return with_segment(key, [&](File& file, const StoredSegment& segment) { return keys_of(file, segment); });
}

Store::Removed Store::remove(const std::vector<SegmentKey>& keys) {
  Removed removed;
  if (read_only_) return removed;
  std::lock_guard lock(mutex_);
  for (const SegmentKey& key : keys) {
    const auto at = state_.segments.find(key);
    if (at == state_.segments.end() || acquired_.count(key)) continue;
    ++removed.n_segments;
    removed.bytes += at->second.record_bytes();
    change(key, std::nullopt);
  }
  return removed;
}

std::vector<SegmentKey> Store::keys() const {
  std::lock_guard lock(mutex_);
  std::vector<SegmentKey> keys;
  for (const auto& [key, segment] : state_.segments) keys.push_back(key);
  return keys;
}

// ---- records --------------------------------------------------------------------------------------------------------

void Store::put(StoreTable table, std::string key, std::string value) {
  std::lock_guard lock(mutex_);
  set_record(table, key, std::move(value));
}

void Store::erase(StoreTable table, const std::string& key) {
  std::lock_guard lock(mutex_);
  set_record(table, key, std::nullopt);
}

std::optional<std::string> Store::get(StoreTable table, const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto& records = state_.tables[size_t(table)];
  const auto at = records.find(key);
  return at == records.end() ? std::nullopt : std::optional(at->second);
}

std::vector<std::pair<std::string, std::string>> Store::records(StoreTable table, const std::string& key_prefix) const {
  std::lock_guard lock(mutex_);
  const auto& records = state_.tables[size_t(table)];
  std::vector<std::pair<std::string, std::string>> found;
  for (auto at = records.lower_bound(key_prefix); at != records.end() && at->first.compare(0, key_prefix.size(), key_prefix) == 0; ++at) found.push_back(*at);
  return found;
}

StoreStatistics Store::statistics() const {
  std::lock_guard lock(mutex_);
  StoreStatistics statistics;
  statistics.bytes = used_bytes();
  statistics.n_segments = state_.segments.size();
  statistics.n_files = segment_files_.size();
  for (const auto& [number, file] : segment_files_) statistics.live_bytes += file->live_bytes;
  for (const auto& table : state_.tables) statistics.n_records += table.size();
  return statistics;
}

// ---- commit ---------------------------------------------------------------------------------------------------------

void Store::commit() {
  std::lock_guard committing(commit_mutex_);
  commit_now(false);
}

void Store::checkpoint() {
  std::lock_guard committing(commit_mutex_);
  commit_now(true);
}

void Store::commit_now(bool checkpoint) {
  require_writable();
  seal_full_files();
  Commit commit;
  {
    std::lock_guard lock(mutex_);
    if (pending_.empty() && wal_ && !checkpoint) return;
    commit.is_checkpoint = checkpoint || !wal_ || wal_bytes_ + pending_bytes_ > std::max(options_.checkpoint_bytes, manifest_bytes_);
    commit.changes = std::exchange(pending_, {});
    commit.before = std::exchange(before_pending_, {});
    commit.pending_bytes = std::exchange(pending_bytes_, 0);
    commit.folder_unflushed = std::exchange(folder_unflushed_, false);
    for (const auto& [number, file] : segment_files_) {
      if (file->n_live == 0 && number != growing_) {
        commit.empty.push_back(file);
      } else if (std::exchange(file->unflushed, false)) {
        commit.unflushed.push_back(file);
      }
    }
    commit.sequence = ++state_.sequence;
    if (commit.is_checkpoint) {
      commit.old_wal = state_.wal;
      commit.number = state_.next_number++;
      commit.wal_number = state_.wal = state_.next_number++;
      for (const FilePtr& file : commit.empty) state_.sealed.erase(file->number);
      commit.manifest = encode_manifest(state_);
    }
  }
  File* unflushable = nullptr;
  try {
    // Segments before whatever says that they are there.
    for (const FilePtr& file : commit.unflushed) {
      unflushable = file.get();
      file->writer->sync();
    }
    unflushable = nullptr;
    if (commit.folder_unflushed) files_.sync_folder(folder_);
    commit.is_checkpoint ? write_checkpoint(commit) : write_log(commit);
  } catch (const EngineError&) {
    std::lock_guard lock(mutex_);
    put_back(commit);
    if (unflushable) revert_unflushed(*unflushable);
    throw;
  }
  remove_files(commit.empty);
}

void Store::write_log(Commit& commit) {
  const std::string record = encode_wal_record(commit.sequence, commit.changes);
  {
    std::lock_guard lock(mutex_);
    if (used_bytes() + record.size() > options_.max_bytes) {
      fail(ErrorCode::store_full, folder_, ": expected room for ", record.size(), " bytes of log below the cap of ", options_.max_bytes, ", found ", used_bytes(), " in use");
    }
  }
  const uint64_t before = wal_->size();
  try {
    wal_->append({{record.data(), record.size()}});
  } catch (const EngineError&) {
    try {
      wal_->truncate(before);
    } catch (const EngineError&) {
      wal_.reset();
    }
    throw;
  }
  try {
    wal_->sync();
  } catch (const EngineError&) {
    // Whether the record is on disk nobody can tell: nothing may follow it.
    wal_.reset();
    throw;
  }
  wal_->reserve(log_room());
  std::lock_guard lock(mutex_);
  wal_bytes_ = wal_->size();
}

void Store::write_checkpoint(Commit& commit) {
  {
    std::lock_guard lock(mutex_);
    if (used_bytes() + commit.manifest.size() + kWalHeaderBytes > options_.max_bytes) {
      fail(ErrorCode::store_full, folder_, ": expected room for ", commit.manifest.size(), " bytes of tables below the cap of ", options_.max_bytes, ", found ", used_bytes(), " in use");
    }
  }
  const std::string manifest = manifest_name(commit.number), wal = wal_name(commit.wal_number);
  const auto write = [&](const std::string& name, const std::string& bytes) {
    auto file = files_.open_append(path(name));
    file->truncate(0);
    file->append({{bytes.data(), bytes.size()}});
    file->sync();
    return file;
  };
  std::unique_ptr<WritableFile> log;
  try {
    log = write(wal, encode_wal_header(commit.wal_number));
    write(manifest, commit.manifest);
    files_.sync_folder(folder_);
    write(kCurrentTemporary, encode_current(commit.number));
    files_.rename(path(kCurrentTemporary), path(kCurrent));
  } catch (const EngineError&) {
    for (const std::string& name : {wal, manifest, std::string(kCurrentTemporary)}) {
      if (!remove_quietly(path(name))) obsolete_.push_back(name);
    }
    throw;
  }
  try {
    files_.sync_folder(folder_);
  } catch (const EngineError&) {
    // Either CURRENT may be found after a crash: both checkpoints stay, and nothing is added to either.
    wal_.reset();
    obsolete_.insert(obsolete_.end(), {manifest, wal});
    throw;
  }
  wal_ = std::move(log);
  wal_->reserve(log_room());
  if (manifest_ != 0) obsolete_.push_back(manifest_name(manifest_));
  if (commit.old_wal != 0) obsolete_.push_back(wal_name(commit.old_wal));
  {
    std::lock_guard lock(mutex_);
    wal_bytes_ = wal_->size();
    manifest_ = commit.number;
    manifest_bytes_ = commit.manifest.size();
  }
  std::erase_if(obsolete_, [&](const std::string& name) { return remove_quietly(path(name)); });
}

void Store::remove_files(const std::vector<FilePtr>& files) {
  for (const FilePtr& file : files) {
    {
      std::lock_guard lock(mutex_);
      segment_files_.erase(file->number);
      state_.sealed.erase(file->number);
    }
    {
      std::lock_guard lock(reader_mutex_);
      if (last_reader_.first == file->number) last_reader_ = {};
    }
    remove_quietly(file->path);  // else it is an orphan, for the next start
  }
}

void Store::seal_full_files() {
  std::vector<FilePtr> full;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [number, file] : segment_files_) {
      if (file->writer && !file->sealed && !file->suspect && number != growing_ && file->n_live > 0) full.push_back(file);
    }
  }
  for (const FilePtr& file : full) seal(*file);
}

void Store::seal(File& file) {
  static constexpr uint8_t kZeros[kKeysBorder] = {};
  std::vector<std::pair<SegmentKey, StoredSegment>> live;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [key, segment] : state_.segments) {
      if (segment.file == file.number) live.push_back({key, segment});
    }
  }
  std::sort(live.begin(), live.end(), [](const auto& a, const auto& b) { return a.second.offset < b.second.offset; });
  const uint64_t before = file.writer->size();
  uint64_t keys_offset = up_to(kKeysBorder, before);
  FileBytes bytes;
  std::vector<Bytes> parts;
  try {
    bytes = bytes_of(file, 0, before);
    parts.push_back({kZeros, size_t(keys_offset - before)});
    for (auto& [key, segment] : live) {
      const uint8_t* image = bytes.data + segment.offset + segment_front_bytes(segment.layout);
      if (!options_.reading) continue;
      if (reading_keys_checksum(segment.layout, *options_.reading, image) != segment.keys_checksum) {
        fail(ErrorCode::store_invalid, file.path, ": checksum of the reading keys of segment ", segment_key_text(key), " differs");
      }
      segment.keys_offset = keys_offset;
      for (size_t head = 0; head < options_.reading->kv_heads.size(); ++head) parts.push_back({image + reading_keys_offset(segment.layout, *options_.reading, head), segment.layout.v});
      keys_offset += reading_keys_bytes(segment.layout, *options_.reading);
    }
    file.writer->append(parts);
  } catch (const EngineError& error) {
    // It is read as it is: damage is found with the segment that has it, and what is full now may have room later.
    try {
      file.writer->truncate(before);
    } catch (const EngineError&) {
    }
    std::lock_guard lock(mutex_);
    file.bytes = file.writer->size();
    if (error.code() == ErrorCode::store_invalid) {
      file.suspect = true;
      findings_.push_back(error.what());
    }
    return;
  }
  XXH3_state_t sum;
  XXH3_64bits_reset(&sum);
  XXH3_64bits_update(&sum, bytes.data, before);
  for (const Bytes& part : parts) XXH3_64bits_update(&sum, part.data, part.size);
  try {
    file.writer->sync();
  } catch (const EngineError&) {
    std::lock_guard lock(mutex_);
    file.bytes = file.writer->size();
    revert_unflushed(file);
    throw;
  }
  std::lock_guard lock(mutex_);
  file.bytes = file.writer->size();
  file.sealed = true;
  file.unflushed = false;
  file.writer.reset();
  const SealedFile sealed{file.bytes, XXH3_64bits_digest(&sum)};
  state_.sealed[file.number] = sealed;
  pending_.sealed[file.number] = sealed;
  pending_bytes_ += kSegmentEntryBytes;
  for (const auto& [key, segment] : live) {
    const auto at = state_.segments.find(key);
    if (at != state_.segments.end() && at->second.is_at(segment)) change(key, segment);
  }
}

// ---- room -----------------------------------------------------------------------------------------------------------

bool Store::is_small(const File& file) const { return file.n_live > 0 && file.bytes < segment_file_bytes() / 2; }

double Store::live_share_of(const File& file) const {
  const auto small = [&](const auto& entry) { return is_small(*entry.second); };
  // Header, and what the keys' border costs at most: every file has them, and small ones can share one file's.
  const bool can_share = is_small(file) && std::count_if(segment_files_.begin(), segment_files_.end(), small) > 1;
  const uint64_t frame = can_share ? 0 : kSegmentFileHeaderBytes + kKeysBorder;
  const uint64_t useful = file.live_bytes + (file.sealed ? file.live_keys_bytes : 0) + frame;
  return useful >= file.bytes ? 1 : double(useful) / double(file.bytes);
}

// Whether there is room for all that lives in a file. Space comes back with whole files only: one that is begun and cannot be
// finished would cost room instead.
bool Store::can_copy(const File& file) const {
  const uint64_t needed = file.live_bytes + file.live_keys_bytes + file.n_live * 2 * kSegmentEntryBytes + 2 * (kSegmentFileHeaderBytes + kKeysBorder);
  return used_bytes() + reserved_bytes() + needed <= options_.max_bytes;
}

// The file with the smallest share of live bytes, below `live_share`, or one that is damaged; never the one that grows, nor one for
// whose copy there is no room.
Store::FilePtr Store::mostly_dead(double live_share) const {
  FilePtr worst;
  double least = live_share;
  for (const auto& [number, file] : segment_files_) {
    if (number == growing_ || file->n_live == 0) continue;
    const double share = file->suspect ? -1 : live_share_of(*file);
    if (share < least && can_copy(*file)) {
      worst = file;
      least = share;
    }
  }
  return worst;
}

uint64_t Store::compact_now(uint64_t max_bytes, double live_share) {
  FilePtr file;
  {
    std::lock_guard appending(append_mutex_);
    std::lock_guard lock(mutex_);
    // A file that grows is let be until it is half full, unless much of it is dead.
    const auto growing = segment_files_.find(growing_);
    if (growing != segment_files_.end() && growing->second->bytes > segment_file_bytes() / 2 &&
        live_share_of(*growing->second) < live_share) {
      growing_ = 0;
    }
    file = mostly_dead(live_share);
  }
  const uint64_t copied = file ? copy_out_of(*file, max_bytes) : 0;
  commit_now(false);
  return copied;
}

uint64_t Store::copy_out_of(File& file, uint64_t max_bytes) {
  std::vector<std::pair<uint64_t, SegmentKey>> live;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [key, segment] : state_.segments) {
      if (segment.file == file.number) live.push_back({segment.offset, key});
    }
  }
  uint64_t copied = 0;
  std::sort(live.begin(), live.end());
  for (const auto& place : live) {
    if (copied >= max_bytes) break;
    const SegmentKey& key = place.second;  // a binding of its own: Clang 14 captures no structured one
    try {
      with_segment(key, [&](File& from, const StoredSegment& segment) {
        const FileBytes bytes = bytes_of(from, segment.offset, segment.end());
        record_of(bytes, from, key, segment);
        if (options_.reading) {
          const uint8_t* image = bytes.data + segment.offset + segment_front_bytes(segment.layout);
          if (reading_keys_checksum(segment.layout, *options_.reading, image) != segment.keys_checksum) fail(ErrorCode::store_invalid, from.path, ": checksum of the reading keys differs");
        }
        std::lock_guard appending(append_mutex_);
        {
          std::lock_guard lock(mutex_);
          const uint64_t needed = segment.record_bytes() + kSegmentFileHeaderBytes;
          if (used_bytes() + reserved_bytes() + needed > options_.max_bytes) fail(ErrorCode::store_full, folder_, ": no room below the cap to copy a segment");
        }
        StoredSegment moved = segment;
        append({{bytes.data + segment.offset, size_t(segment.record_bytes())}}, moved);
        std::lock_guard lock(mutex_);
        const auto at = state_.segments.find(key);
        if (at != state_.segments.end() && at->second.is_at(segment)) change(key, moved);
        return true;
      });
      FilePtr now;
      if (const auto segment = locate(key, now)) copied += segment->record_bytes();
    } catch (const EngineError& error) {
      if (error.code() == ErrorCode::store_invalid) continue;  // dropped, or gone
      if (error.code() == ErrorCode::store_full) break;
      throw;
    }
  }
  return copied;
}

// Records lie on borders without gaps, so what a file should be long tells.
bool Store::has_dead(const File& file) const {
  const uint64_t records = kSegmentFileHeaderBytes + file.live_bytes;
  return file.suspect || file.bytes != (file.sealed ? up_to(kKeysBorder, records) + file.live_keys_bytes : records);
}

void Store::purge() {
  std::lock_guard committing(commit_mutex_);
  require_writable();
  std::vector<FilePtr> files;
  {
    std::lock_guard appending(append_mutex_);
    std::lock_guard lock(mutex_);
    for (const auto& [number, file] : segment_files_) {
      if (!has_dead(*file)) continue;
      if (number == growing_) growing_ = 0;
      files.push_back(file);
    }
  }
  for (const FilePtr& file : files) {
    {
      std::lock_guard lock(mutex_);
      if (!can_copy(*file)) continue;  // what is removed of it stays
    }
    while (copy_out_of(*file, segment_file_bytes()) > 0) commit_now(false);
  }
  commit_now(true);
}

bool Store::compact(uint64_t max_bytes) {
  constexpr double kMostlyDead = 0.5;
  std::lock_guard committing(commit_mutex_);
  require_writable();
  const uint64_t copied = compact_now(max_bytes, kMostlyDead);
  std::lock_guard lock(mutex_);
  return copied > 0 && mostly_dead(kMostlyDead) != nullptr;
}

// Marks segments removed, in the order they were written. Returns the bytes that will be free once their files are gone.
uint64_t Store::evict(uint64_t n_bytes) {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<std::pair<uint64_t, uint64_t>, SegmentKey>> order;
  for (const auto& [key, segment] : state_.segments) {
    if (!acquired_.count(key)) order.push_back({{segment.file, segment.offset}, key});
  }
  std::sort(order.begin(), order.end());
  uint64_t evicted = 0;
  for (const auto& [at, key] : order) {
    if (evicted >= n_bytes) break;
    evicted += state_.segments.at(key).record_bytes();
    change(key, std::nullopt);
  }
  return evicted;
}

bool Store::make_room(uint64_t n_bytes) {
  constexpr double kAnyDead = 0.95;
  std::lock_guard committing(commit_mutex_);
  require_writable();
  const auto fits = [&](uint64_t bytes) {
    std::lock_guard lock(mutex_);
    return this->fits(bytes);
  };
  commit_now(false);
  if (fits(n_bytes)) return true;
  // Some more than asked for, so that it is not asked for with every segment.
  const uint64_t wanted = n_bytes + options_.max_bytes / 16;
  bool log_stays = false;
  while (!fits(wanted)) {
    // What is dead already first; then the log, which may have become as large as the MANIFEST.
    if (compact_now(UINT64_MAX, kAnyDead) > 0) continue;
    if (fits(wanted)) break;
    if (!log_stays && wal_ && wal_->size() > kWalHeaderBytes) {
      try {
        commit_now(true);
      } catch (const EngineError& error) {
        if (error.code() != ErrorCode::store_full) throw;
        log_stays = true;  // a disk that is full has room again when segments are evicted
      }
      continue;
    }
    const uint64_t evicted = evict(wanted);
    {
      std::lock_guard appending(append_mutex_);
      std::lock_guard lock(mutex_);
      growing_ = 0;
    }
    commit_now(false);
    if (evicted == 0 && compact_now(UINT64_MAX, kAnyDead) == 0) break;
  }
  return fits(n_bytes);
}

// ---- verification ---------------------------------------------------------------------------------------------------

Verification Store::verify() {
  std::lock_guard committing(commit_mutex_);
  Verification found;
  bool renew = false;
  verify_logs(found, renew);
  std::vector<FilePtr> files;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [number, file] : segment_files_) files.push_back(file);
  }
  for (const FilePtr& file : files) verify_file(file, found);
  if (!read_only_ && (renew || !found.damaged.empty())) {
    try {
      commit_now(renew);
    } catch (const EngineError& error) {
      found.findings.push_back(error.what());
    }
  }
  return found;
}

void Store::verify_logs(Verification& found, bool& renew) {
  const auto check = [&](const std::string& name, const auto& sound) {
    try {
      const std::string bytes = read_whole(name);
      found.bytes += bytes.size();
      ++found.n_files;
      if (sound(bytes)) return;
      found.findings.push_back(name + ": damaged");
    } catch (const EngineError& error) {
      found.findings.push_back(error.what());
    }
    renew = true;
  };
  if (manifest_ == 0) return;  // nothing was committed yet
  StoreState state;
  check(kCurrent, [&](const std::string& bytes) { return decode_current(bytes) == manifest_; });
  check(manifest_name(manifest_), [&](const std::string& bytes) {
    state = decode_manifest(bytes, manifest_name(manifest_));
    return true;
  });
  if (wal_ && state.wal != 0) {
    check(wal_name(state.wal), [&](const std::string& bytes) { return replay_wal(bytes, state.wal, state, "wal") == bytes.size(); });
  }
}

void Store::verify_file(const FilePtr& file, Verification& found) {
  std::vector<std::pair<SegmentKey, StoredSegment>> live;
  std::optional<SealedFile> sealed;
  uint64_t bytes = 0;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [key, segment] : state_.segments) {
      if (segment.file == file->number) live.push_back({key, segment});
    }
    if (const auto at = state_.sealed.find(file->number); at != state_.sealed.end()) sealed = at->second;
    bytes = file->bytes;
  }
  ++found.n_files;
  found.bytes += bytes;
  const size_t n_damaged = found.damaged.size();
  for (const auto& [key, segment] : live) {
    ++found.n_segments;
    try {
      map(key);
      if (options_.reading) read_keys(key);
    } catch (const EngineError& error) {
      if (error.code() != ErrorCode::store_invalid) throw;
      if (find(key)) continue;
      found.damaged.push_back(key);
      found.findings.push_back(error.what());
    }
  }
  if (found.damaged.size() > n_damaged) return;
  // Header and bytes between the parts, which nobody reads; all the same they are a sign.
  bool sound = false;
  try {
    if (sealed) {
      const FileBytes mapped = bytes_of(*file, 0, bytes);
      sound = mapped.size == sealed->bytes && XXH3_64bits(mapped.data, mapped.size) == sealed->checksum;
    } else {
      sound = has_header(*file);
    }
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::store_invalid) throw;
  }
  if (sound) return;
  found.findings.push_back(file->path + (sealed ? ": checksum of the file differs" : ": header of the file differs") + "; its segments are sound, and will be moved");
  std::lock_guard lock(mutex_);
  file->suspect = true;
}

}  // namespace sala
