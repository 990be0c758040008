// Packs: the memory of a workspace out of a store into one file, and from such a file into another store. Both go through it once,
// some segments at a time, and never hold all of it. What is in the file, byte by byte: pack_format.h.
// Not here: which files a workspace has, whether a segment's address is that of its tokens (TypeScript).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "native/store/pack_format.h"
#include "native/store/store.h"

namespace sala {

// A file of the workspace, by the addresses of what it consists of.
struct PackInput {
  std::string path;
  SegmentKey key{};
  std::vector<SegmentKey> segments;
};

// Writes a pack beside the file that it is to be, whose place it takes when it is whole. Nothing of it stays where that does not happen.
class PackWriter {
 public:
  // `inputs` in any order; the same one twice counts once. Whoever calls has acquired the segments. Throws store_invalid where the store
  // lacks one; store_full, store_unwritable as all that is written here.
  PackWriter(FileSystem& files, std::string path, std::string temporary, std::shared_ptr<Store> store, PackAbout about, std::vector<PackInput> inputs);
  ~PackWriter();
  PackWriter(const PackWriter&) = delete;
  PackWriter& operator=(const PackWriter&) = delete;

  const PackHead& head() const { return head_; }
  // Of the whole pack.
  uint64_t bytes() const { return bytes_; }
  uint64_t written() const;
  // About `max_bytes` more, at least one segment. False: all of them are there. Throws store_invalid: a segment was damaged, and the
  // store has dropped it.
  bool write(uint64_t max_bytes);
  // Durable, under its name. Once, when all is written.
  void finish();

 private:
  void append(const std::vector<Bytes>& parts);

  struct Sum;
  FileSystem& files_;
  const std::string path_, temporary_;
  std::shared_ptr<Store> store_;
  PackHead head_;
  uint64_t bytes_ = 0;
  size_t next_ = 0;
  std::unique_ptr<Sum> sum_;
  std::unique_ptr<WritableFile> file_;  // null: finished
};

// Reads a pack from its beginning to its end. Nothing in it is believed: the head is refused as a whole, a segment is damaged alone.
class PackReader {
 public:
  // Throws store_invalid, store_newer.
  PackReader(FileSystem& files, std::string path);
  ~PackReader();
  PackReader(const PackReader&) = delete;
  PackReader& operator=(const PackReader&) = delete;

  const PackHead& head() const { return head_; }
  // Throws store_invalid where a segment's counts are not those that the model gives to so many tokens.
  void require_layouts(const std::function<SegmentLayout(int n_tokens)>& layout_of) const;
  // Of the file as it was opened, and as a whole pack of this head has them.
  uint64_t bytes() const { return bytes_; }
  uint64_t expected_bytes() const { return expected_bytes_; }

  struct Segment {
    size_t index = 0;             // in the head
    std::vector<int32_t> tokens;
    std::string damage;           // what is wrong with it; empty: every part of it was checked
  };
  // The next ones, of about `max_bytes` together, at least one; empty: that was all. Those before are let go of.
  std::vector<Segment> read(uint64_t max_bytes);
  // Adds one that was read last, and is sound, to a store, and acquires it there. Throws as Store::add() does.
  void add_to(Store& store, size_t index) const;
  // When all was read: why the file is not the pack that was written though no segment is damaged; empty: it is.
  std::string damage_of_the_rest() const;

 private:
  struct Sum;
  struct Record {
    size_t index;
    Aligned<uint8_t> bytes;
    std::vector<int32_t> tokens;
  };
  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  PackHead head_;
  uint64_t bytes_ = 0, expected_bytes_ = 0;
  uint64_t at_ = 0;  // of the next record
  size_t next_ = 0;
  std::vector<Record> records_;  // that were read last, and are sound
  bool all_sound_ = true;
  std::unique_ptr<Sum> sum_;
};

}  // namespace sala
