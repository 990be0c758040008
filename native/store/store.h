// The durable memory of one model: encoded segments by their address, and small tables of records that the store's user encodes.
// A cache: always rebuildable, yet it never lies. What was committed survives a crash whole, what was not is not there; bytes
// are checked before they are used, and what is damaged is dropped and named, so that it is made again.
//
// What is added or put is seen at once in this process and durable after the next commit(): data first, then one record of the
// log (store_format.h). Every so often a checkpoint writes all that is known into a new MANIFEST and begins a new log. Segment files
// only grow, are sealed when they are full, then never change; space comes back by removing whole files, to which compact() copies
// what still lives away from those that are mostly dead.
//
// One process writes (a lock file). All calls may come from any thread; commit(), compact(), make_room() and verify() do the
// flushing and are for a thread that may wait. Whoever holds an image may read it on whatever becomes of its file.
// Not here: which segments a workspace has (TypeScript), images that are not on disk (context/segment_table.h).
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "native/store/file_system.h"
#include "native/store/store_format.h"

namespace sala {

struct StoreOptions {
  std::optional<ReadingKeys> reading;             // what read_keys() gives
  uint64_t max_bytes = uint64_t(10) << 30;        // of all files together, kept at every moment
  uint64_t segment_file_bytes = uint64_t(64) << 20;  // a file as large is sealed
  uint64_t checkpoint_bytes = uint64_t(4) << 20;  // a log that is as large, and as large as the MANIFEST, ends
  int lock_wait_ms = 0;  // for a process that has the store and is about to end
};

struct SegmentInfo {
  SegmentLayout layout;
  int n_header_tokens = 0;
};

struct StoreStatistics {
  uint64_t bytes = 0;  // of all files
  uint64_t live_bytes = 0;  // of the segments in them
  size_t n_segments = 0, n_files = 0, n_records = 0;
};

struct Verification {
  size_t n_segments = 0, n_files = 0;  // that were looked at
  uint64_t bytes = 0;
  std::vector<SegmentKey> damaged;     // dropped
  std::vector<std::string> findings;   // a line each: what was damaged, where
};

class Store {
 public:
  // Opens what is in `folder`, or begins anew: where nothing is there, where nothing can be made of it, where it is another
  // identity's. A folder that cannot be written is read. Throws store_newer; store_unwritable where another process has it.
  Store(FileSystem& files, std::string folder, const std::string& identity, StoreOptions options);
  ~Store();  // does not commit
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // ---- segments

  std::optional<SegmentInfo> find(const SegmentKey& key) const;
  // find(), and the segment is not evicted or removed until it is released as often.
  std::optional<SegmentInfo> acquire(const SegmentKey& key);
  void release(const SegmentKey& key) noexcept;
  // Writes a segment that is not there yet, and acquires it. Throws store_full before anything is written where it would pass the cap.
  void add(const SegmentHeader& header, const uint8_t* image);
  // The image, every part of it checked. Throws store_invalid: it is damaged, and dropped now, or not there.
  SegmentImage map(const SegmentKey& key);
  // The whole record, as it lies in its file, checked as map() checks.
  FileBytes record(const SegmentKey& key);
  // The tokens, checked as map() checks.
  std::vector<int32_t> tokens(const SegmentKey& key);
  // Keys of the options' `reading`, gathered as segment_record.h says and checked. Throws as map() does.
  Aligned<uint8_t> read_keys(const SegmentKey& key);
  // Those that nobody has acquired. Returns how many were there, and their bytes.
  struct Removed {
    size_t n_segments = 0;
    uint64_t bytes = 0;
  };
  Removed remove(const std::vector<SegmentKey>& keys);
  std::vector<SegmentKey> keys() const;

  // ---- records

  void put(StoreTable table, std::string key, std::string value);
  void erase(StoreTable table, const std::string& key);
  std::optional<std::string> get(StoreTable table, const std::string& key) const;
  // Those whose key begins so, ascending.
  std::vector<std::pair<std::string, std::string>> records(StoreTable table, const std::string& key_prefix) const;

  // ---- durability

  // All changes until now, or none of them. Throws store_full, store_unwritable: they wait for the next one. Segments whose bytes
  // could not be flushed are dropped then.
  void commit();
  // The same, and the log begins anew.
  void checkpoint();
  // Copies up to about `max_bytes` of what lives out of mostly dead files, and commits. True while there is more to do.
  bool compact(uint64_t max_bytes);
  // After it nothing of what was removed is on the disk any more: what lives is copied out of every file with something dead in it
  // (but for one for whose copy there is no room), and the log begins anew. Throws as commit() does.
  void purge();
  // What has to fit so that a segment can be added.
  uint64_t needed_bytes(const SegmentLayout& layout) const;
  // Evicts segments that nobody has acquired, those written first first, until `n_bytes` more fit under the cap. False: they do not.
  bool make_room(uint64_t n_bytes);
  // Reads everything; what is damaged is dropped, and the rest of its file moved on by compact().
  Verification verify();

  StoreStatistics statistics() const;
  // Why it is only read; nothing: it is written.
  const std::optional<std::string>& read_only() const { return read_only_; }
  // Lines for the log: what was found damaged, dropped or begun anew since the last call.
  std::vector<std::string> take_findings();

 private:
  // A segment file. Reached through shared_ptr, since readers go on with one that is removed.
  struct File {
    uint64_t number = 0;
    std::string path;
    std::shared_ptr<WritableFile> writer;  // null: sealed, or only read
    uint64_t bytes = 0, live_bytes = 0;    // live: of the records of segments
    uint64_t live_keys_bytes = 0;          // what sealing it adds, or has added
    size_t n_live = 0;
    bool sealed = false;
    bool unflushed = false;                // appended to since the last commit took it
    bool suspect = false;                  // part of it is damaged or could not be flushed: what lives is to be moved
    std::mutex mapping_mutex;
    std::weak_ptr<const void> mapping;
    FileBytes mapped;                      // without an owner of its own: valid while `mapping` is
  };
  using FilePtr = std::shared_ptr<File>;
  using Before = std::map<SegmentKey, std::optional<StoredSegment>>;
  struct Commit;

  std::string path(const std::string& name) const { return join_path(folder_, name); }
  std::string read_whole(const std::string& name) const;
  void open(const std::string& identity);
  bool load_manifest(uint64_t number, const std::string& identity);
  void load_wal();
  void load_segment_files();
  bool has_header(const File& file) const;
  void remove_orphans(const std::vector<std::string>& names);
  bool remove_quietly(const std::string& path);

  // Where a segment is, and its file; nothing: it is not there.
  std::optional<StoredSegment> locate(const SegmentKey& key, FilePtr& file) const;
  // A file, mapped, of which begin … end is used: that is there. Its pages are given up with the owner, since the mapping lives on
  // while anything else of the file is in use.
  FileBytes bytes_of(File& file, uint64_t begin, uint64_t end) const;
  SegmentRecord record_of(const FileBytes& bytes, const File& file, const SegmentKey& key, const StoredSegment& segment) const;
  Aligned<uint8_t> keys_of(File& file, const StoredSegment& segment) const;
  // Calls use(file, segment); where that finds damage the segment is dropped, unless it was moved meanwhile.
  template <class Use>
  auto with_segment(const SegmentKey& key, const Use& use);
  void drop(const SegmentKey& key, const StoredSegment& segment, const std::string& why);
  void note(std::string line);

  // With mutex_ held.
  File& file_of(const StoredSegment& segment) { return *segment_files_.at(segment.file); }
  void place(const SegmentKey& key, const std::optional<StoredSegment>& segment);
  void change(const SegmentKey& key, const std::optional<StoredSegment>& segment);
  void set_record(StoreTable table, const std::string& key, std::optional<std::string> value);
  void revert_unflushed(File& file);
  void put_back(Commit& commit);
  uint64_t used_bytes() const;
  uint64_t reserved_bytes() const;
  // A file ends up somewhat larger than it is to be: with its last segment and all reading keys.
  uint64_t copy_reserve() const { return segment_file_bytes() + segment_file_bytes() / 4; }
  uint64_t segment_file_bytes() const { return std::min(options_.segment_file_bytes, options_.max_bytes / 20); }
  bool fits(uint64_t n_bytes) const { return used_bytes() + reserved_bytes() + n_bytes + copy_reserve() <= options_.max_bytes; }
  // Of the disk's room, taken in advance: so that what was added before the disk was full can be committed.
  uint64_t log_room() const { return std::min(uint64_t(64) << 10, options_.max_bytes / 256); }
  bool has_reading_keys(const SegmentLayout& layout) const;
  uint64_t keys_bytes(const SegmentLayout& layout) const { return options_.reading ? reading_keys_bytes(layout, *options_.reading) : 0; }
  bool is_small(const File& file) const;
  double live_share_of(const File& file) const;
  FilePtr mostly_dead(double live_share) const;
  bool has_dead(const File& file) const;
  bool can_copy(const File& file) const;

  void require_writable() const;
  // With append_mutex_ held. `segment` has all but its place, which is added.
  void append(const std::vector<Bytes>& record, StoredSegment& segment);
  FilePtr growing_file();
  // With commit_mutex_ held.
  void commit_now(bool checkpoint);
  void write_log(Commit& commit);
  void write_checkpoint(Commit& commit);
  void remove_files(const std::vector<FilePtr>& files);
  void seal_full_files();
  void seal(File& file);
  uint64_t compact_now(uint64_t max_bytes, double live_share);
  uint64_t copy_out_of(File& file, uint64_t max_bytes);
  uint64_t evict(uint64_t n_bytes);
  void verify_logs(Verification& found, bool& renew);
  void verify_file(const FilePtr& file, Verification& found);

  FileSystem& files_;
  const std::string folder_;
  const StoreOptions options_;
  std::shared_ptr<void> lock_;
  std::optional<std::string> read_only_;

  // Taken in this order.
  std::mutex commit_mutex_;   // one commit, compaction, verification at a time; the log
  std::mutex append_mutex_;   // who appends to the file that grows
  mutable std::mutex mutex_;  // all that follows, but for the log

  StoreState state_;          // what this process sees: also what is not committed yet
  std::map<uint64_t, FilePtr> segment_files_;
  std::map<SegmentKey, int> acquired_;
  StoreChanges pending_;
  Before before_pending_;     // of each of pending_.segments: what is committed
  uint64_t pending_bytes_ = 0, record_bytes_ = 0;  // about what the changes take in the log, the tables in a MANIFEST
  uint64_t growing_ = 0;      // the file that records are appended to; 0: none
  bool folder_unflushed_ = false;
  uint64_t wal_bytes_ = 0, manifest_ = 0, manifest_bytes_ = 0;
  std::vector<std::string> findings_;

  std::unique_ptr<WritableFile> wal_;  // null: the next commit is a checkpoint
  std::vector<std::string> obsolete_;  // names that go once a checkpoint is durable

  mutable std::mutex reader_mutex_;
  mutable std::pair<uint64_t, std::shared_ptr<ReadableFile>> last_reader_;  // keys are read file by file
};

}  // namespace sala
