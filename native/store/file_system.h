// What the store asks of a file system, and no more: whoever stands behind it may be the operating system or a test that loses
// power. Paths are UTF-8. Not here: what files mean (store_format.h), which there are (store.h).
//
// Durability is only what was asked for: bytes of a file by its sync(), names in a folder (made, renamed, removed) by
// sync_folder(). Errors: store_full (no space, quota), store_unwritable (anything else that keeps from writing), store_invalid
// (cannot be read); out_of_memory where a mapping does not fit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "native/platform.h"

namespace sala {

// Bytes of a file as they were; valid as long as somebody holds `owner`, also when the file is removed.
struct FileBytes {
  std::shared_ptr<const void> owner;
  const uint8_t* data = nullptr;
  size_t size = 0;
  // The pages of some of them may leave memory; whoever reads them again fetches them again. Empty: they stay. As valid as the bytes.
  std::function<void(size_t offset, size_t n_bytes)> let_go = nullptr;
};

class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual uint64_t size() const = 0;
  // At the end. A failed one may have left a part of the bytes.
  virtual void append(const std::vector<Bytes>& parts) = 0;
  virtual void truncate(uint64_t size) = 0;
  virtual void sync() = 0;
  // Room for that many more bytes is taken now, where that is possible: what is appended within them finds the disk full no more.
  virtual void reserve(uint64_t n_bytes) noexcept = 0;
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual void read(uint64_t offset, void* to, size_t n_bytes) const = 0;
  // All that is there now.
  virtual FileBytes map() const = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual void make_folder(const std::string& path) = 0;
  // Names of what is in it, ascending.
  virtual std::vector<std::string> list(const std::string& folder) = 0;
  // Of a regular file; nothing: there is none.
  virtual std::optional<uint64_t> size(const std::string& path) = 0;
  // Made if it is not there.
  virtual std::unique_ptr<WritableFile> open_append(const std::string& path) = 0;
  virtual std::unique_ptr<ReadableFile> open_read(const std::string& path) = 0;
  // Replaces what is there.
  virtual void rename(const std::string& from, const std::string& to) = 0;
  // Nothing there is no error.
  virtual void remove(const std::string& path) = 0;
  virtual void sync_folder(const std::string& path) = 0;
  // Held until what is returned is gone; null: another process has it.
  virtual std::shared_ptr<void> lock(const std::string& path) = 0;
};

// The operating system's.
FileSystem& system_files();

}  // namespace sala
