// The only place in native/ that calls the operating system: files, memory, cores, niceness. POSIX in platform.cpp;
// another system is another platform_*.cpp behind this header. Paths are UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace sala {

// ---- files ----------------------------------------------------------------------------------------------------------

// A regular file, mapped read-only. Not a guard against another process that truncates the file while it is mapped.
class MappedFile {
 public:
  MappedFile() = default;
  // Throws `code` if there is no such file, if it cannot be read, or if it is a folder, pipe, socket or device;
  // out_of_memory if it does not fit into the address space. An empty file maps to size 0. One that grows meanwhile is refused,
  // unless it may: then what was there at first is mapped.
  MappedFile(const std::string& path, ErrorCode code, bool may_grow = false);
  ~MappedFile() { close(); }
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // The pages that touch offset … offset + n_bytes − 1, and some around them, may leave memory; a later read fetches them again.
  void advise_dont_need(size_t offset, size_t n_bytes) const;
  void close();

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

struct FileStatus {
  enum class Kind { none, regular, folder, other };
  Kind kind = Kind::none;
  uint64_t size = 0;  // bytes, of a regular file
  int64_t mtime_ns = 0;
  uint64_t inode = 0;
};

// Links are followed. Kind::none if there is nothing or it cannot be looked at.
FileStatus file_status(const std::string& path);
inline bool is_folder(const std::string& path) { return file_status(path).kind == FileStatus::Kind::folder; }

std::string join_path(const std::string& folder, const std::string& name);

// Names in a folder, ascending, without "." and "..". Throws `code`.
std::vector<std::string> list_folder(const std::string& path, ErrorCode code);

// A whole regular file of at most max_bytes. Throws `code`.
std::string read_file(const std::string& path, size_t max_bytes, ErrorCode code);

struct Bytes {
  const void* data;
  size_t size;
};

// The folder and those above it, mode 0700 where they are made. Throws store_unwritable or store_full.
void ensure_folder(const std::string& path);

// Renames within a folder, replacing what is there. False if that is impossible: nothing changed then.
bool rename_file(const std::string& from, const std::string& to);

// A file that is read at offsets, whatever others do to it meanwhile: where it was cut that is an error, not a fault as in a
// mapping. Throws `code` like read_file.
class RandomAccessFile {
 public:
  RandomAccessFile(const std::string& path, ErrorCode code);
  ~RandomAccessFile();
  RandomAccessFile(const RandomAccessFile&) = delete;
  RandomAccessFile& operator=(const RandomAccessFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened
  // All n_bytes; fewer are an error.
  void read(uint64_t offset, void* to, size_t n_bytes) const;

 private:
  std::string path_;
  ErrorCode code_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// A file that only grows, or is cut; mode 0600, made if it is not there. Throws store_full (no space, quota, file size limit) or
// store_unwritable (rights, read-only, no such folder, anything else); a failed append may have left a part of its bytes.
class AppendFile {
 public:
  explicit AppendFile(const std::string& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  uint64_t size() const { return size_; }
  void append(const std::vector<Bytes>& parts);
  void truncate(uint64_t size);
  void sync();
  // Takes room on the disk for that many more bytes, where the file system can and has it. The size stays.
  void reserve(uint64_t n_bytes) noexcept;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// Makes names that were created, renamed or removed in it durable. Throws store_full or store_unwritable.
void sync_folder(const std::string& path);

// Removes a file; nothing there is no error. Throws store_unwritable.
void remove_file(const std::string& path);

// Held by one process at a time, given back when it ends, however it ends. False: another one, or another FileLock of this
// one, has it. Throws store_unwritable where the file cannot be made.
class FileLock {
 public:
  FileLock() = default;
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  bool try_lock(const std::string& path);

 private:
  int fd_ = -1;
};

// ---- machine and process --------------------------------------------------------------------------------------------

// Cores with registers of their own that this process may use: affinity and cgroup limits count, hyper-threads do not.
// ≥ 1. `root` is where /proc and /sys lie (tests put a made-up machine there).
int physical_cores(const std::string& root = "");

struct MemoryStatus {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  // without swapping, file cache that can be given up included
};

// Of this machine or, where it is smaller, of the cgroup that holds the process.
MemoryStatus system_memory(const std::string& root = "");

struct ProcessMemory {
  uint64_t resident_bytes = 0;
  uint64_t private_bytes = 0;  // anonymous, swapped out included: what is lost to others while the process lives
};

ProcessMemory process_memory();

constexpr size_t kHugePage = size_t{2} << 20;

// Zeroed memory on a border of kHugePage, on huge pages where the system has them, for what is read over and over. Null: there is none.
std::shared_ptr<uint8_t> huge_page_memory(size_t n_bytes);

// Gives memory that was freed back to the system, where the allocator would keep it: 27 MB after a load of 240 MB
// (glibc).
void release_free_memory();

// 0 … 19, of the calling thread, and for good: without privileges no system of ours lets a thread take it back. Where niceness
// belongs to whole processes nothing happens. A refusal by the system is not an error, since niceness is a courtesy.
void set_thread_niceness(int niceness);

}  // namespace sala
