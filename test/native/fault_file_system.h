// A file system in memory that loses power. Only what was flushed is sure to be there after a crash: of the rest any part may be,
// in any order, whole or torn, and names may be lost while bytes are kept. Every operation that changes something counts; at a
// chosen one the power goes (Killed), or it fails with a code. One folder; not a simulation of any real disk, but harsher.
#pragma once

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <set>

#include "kernels/aligned.h"
#include "native/store/file_system.h"

namespace sala {

// Passes through all of the store: nothing there may catch it.
struct Killed {};

class FaultFileSystem : public FileSystem {
 public:
  explicit FaultFileSystem(uint32_t seed) : random_(seed) {}

  // The n-th operation from now on is the last one, done in part.
  void kill_at(int64_t n) { kill_at_ = n < 0 ? -1 : n_operations_ + n; }
  bool killed() const { return killed_; }
  int64_t n_operations() const { return n_operations_; }
  // From the n-th operation from now on, `count` of them fail.
  void fail_at(int64_t n, int64_t count, ErrorCode code) {
    fail_from_ = n_operations_ + n;
    fail_until_ = fail_from_ + count;
    fail_code_ = code;
  }
  // Bytes that all files together may have, what they reserved among them; more is store_full.
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }
  uint64_t used_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [path, inode] : names_) bytes += inode->now.size();
    return bytes;
  }

  // Power comes back: what is on the disk.
  void crash() {
    const double kept = std::array{0.0, 0.5, 0.9, 1.0}[random_() % 4];
    std::map<std::string, InodePtr> names = durable_names_;
    std::set<std::string> lost;  // names whose later operations mean nothing any more
    for (const NameChange& change : name_changes_) {
      const bool depends = lost.count(change.name) || lost.count(change.to);
      if (depends || !chance(kept)) {
        lost.insert(change.name);
        if (!change.to.empty()) lost.insert(change.to);
        continue;
      }
      apply(names, change);
    }
    for (auto& [path, inode] : names) {
      std::string bytes = inode->durable;
      for (const Write& write : inode->unflushed) {
        if (chance(kept)) apply(bytes, write, !chance(kept));
      }
      auto fresh = std::make_shared<Inode>();
      fresh->now = fresh->durable = std::move(bytes);
      inode = std::move(fresh);
    }
    names_ = durable_names_ = std::move(names);
    name_changes_.clear();
    lock_.reset();
    killed_ = false;
    kill_at_ = fail_from_ = fail_until_ = -1;
  }

  // ---- what a test looks at and alters, by name

  std::map<std::string, std::string> contents() const {
    std::map<std::string, std::string> all;
    for (const auto& [path, inode] : names_) all[path] = inode->now;
    return all;
  }
  void replace(const std::string& path, std::string bytes) {
    auto inode = std::make_shared<Inode>();
    inode->now = inode->durable = std::move(bytes);
    names_[path] = durable_names_[path] = inode;
  }

  // ---- FileSystem

  void make_folder(const std::string&) override {}
  std::vector<std::string> list(const std::string& folder) override {
    std::lock_guard lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [path, inode] : names_) names.push_back(path.substr(folder.size() + 1));
    return names;
  }
  std::optional<uint64_t> size(const std::string& path) override {
    std::lock_guard lock(mutex_);
    const auto at = names_.find(path);
    return at == names_.end() ? std::nullopt : std::optional<uint64_t>(at->second->now.size());
  }
  std::unique_ptr<WritableFile> open_append(const std::string& path) override {
    std::lock_guard lock(mutex_);
    auto at = names_.find(path);
    if (at == names_.end()) {
      begin([] {});
      auto inode = std::make_shared<Inode>();
      at = names_.emplace(path, inode).first;
      name_changes_.push_back({NameChange::Kind::create, path, "", inode});
    }
    return std::make_unique<Writer>(*this, at->second);
  }
  std::unique_ptr<ReadableFile> open_read(const std::string& path) override {
    std::lock_guard lock(mutex_);
    if (killed_) throw Killed();
    const auto at = names_.find(path);
    if (at == names_.end()) fail(ErrorCode::store_invalid, path, ": expected a file, found none");
    return std::make_unique<Reader>(*this, at->second);
  }
  void rename(const std::string& from, const std::string& to) override { change_name({NameChange::Kind::rename, from, to, nullptr}); }
  void remove(const std::string& path) override {
    std::lock_guard lock(mutex_);
    if (!names_.count(path)) return;
    change_name_now({NameChange::Kind::remove, path, "", nullptr});
  }
  void sync_folder(const std::string&) override {
    std::lock_guard lock(mutex_);
    begin([&] {
      if (chance(0.5)) flush_names();
    });
    flush_names();
  }
  std::shared_ptr<void> lock(const std::string&) override {
    if (const auto held = lock_.lock()) return nullptr;
    auto lock = std::make_shared<int>(0);
    lock_ = lock;
    return lock;
  }

 private:
  struct Write {
    uint64_t offset;
    std::string bytes;
    bool truncates;  // to `offset`
  };
  struct Inode {
    std::string now, durable;
    uint64_t reserved_end = 0;
    uint64_t taken_bytes() const { return std::max<uint64_t>(now.size(), reserved_end); }
    std::vector<Write> unflushed;
    std::weak_ptr<Aligned<uint8_t>> mapped;  // of `now`
  };
  using InodePtr = std::shared_ptr<Inode>;
  struct NameChange {
    enum class Kind { create, rename, remove } kind;
    std::string name, to;
    InodePtr inode;
  };

  class Writer : public WritableFile {
   public:
    Writer(FaultFileSystem& files, InodePtr inode) : files_(files), inode_(std::move(inode)) {}
    uint64_t size() const override { return inode_->now.size(); }
    void append(const std::vector<Bytes>& parts) override {
      std::string bytes;
      for (const Bytes& part : parts) bytes.append(static_cast<const char*>(part.data), part.size);
      std::lock_guard lock(files_.mutex_);
      const auto write_some = [&] { write(bytes.substr(0, bytes.empty() ? 0 : files_.random_() % bytes.size())); };
      files_.begin(write_some);
      const uint64_t others = files_.taken_bytes() - inode_->taken_bytes();
      const uint64_t most = std::max(files_.capacity_ > others ? files_.capacity_ - others : 0, inode_->taken_bytes());
      if (inode_->now.size() + bytes.size() > most) {
        write(bytes.substr(0, most > inode_->now.size() ? most - inode_->now.size() : 0));
        fail(ErrorCode::store_full, "no space left");
      }
      write(std::move(bytes));
    }
    void reserve(uint64_t n_bytes) noexcept override {
      std::lock_guard lock(files_.mutex_);
      const uint64_t end = inode_->now.size() + n_bytes, taken = inode_->taken_bytes();
      if (end > taken && files_.taken_bytes() + (end - taken) <= files_.capacity_) inode_->reserved_end = end;
    }
    void truncate(uint64_t size) override {
      std::lock_guard lock(files_.mutex_);
      if (size == inode_->now.size()) return;
      inode_->reserved_end = 0;
      files_.begin([] {});
      inode_->unflushed.push_back({size, "", true});
      inode_->now.resize(size);
      inode_->mapped.reset();
    }
    void sync() override {
      std::lock_guard lock(files_.mutex_);
      // One that fails, as one that is broken off, has made some of it durable, and the rest will never be.
      files_.begin([&] {
        for (const Write& write : inode_->unflushed) {
          if (files_.chance(0.5)) files_.apply(inode_->durable, write, false);
        }
        inode_->unflushed.clear();
      });
      // Not simply all that is there: what an earlier flush failed to write stays unwritten, though readers see it.
      for (const Write& write : inode_->unflushed) files_.apply(inode_->durable, write, false);
      inode_->unflushed.clear();
    }

   private:
    void write(std::string bytes) {
      const uint64_t offset = inode_->now.size();
      inode_->now += bytes;
      inode_->unflushed.push_back({offset, std::move(bytes), false});
      inode_->mapped.reset();
    }
    FaultFileSystem& files_;
    InodePtr inode_;
  };

  class Reader : public ReadableFile {
   public:
    Reader(FaultFileSystem& files, InodePtr inode) : files_(files), inode_(std::move(inode)) {}
    void read(uint64_t offset, void* to, size_t n_bytes) const override {
      std::lock_guard lock(files_.mutex_);
      if (offset > inode_->now.size() || n_bytes > inode_->now.size() - offset) fail(ErrorCode::store_invalid, "expected ", n_bytes, " bytes at ", offset);
      if (n_bytes > 0) std::memcpy(to, inode_->now.data() + offset, n_bytes);
    }
    FileBytes map() const override {
      std::lock_guard lock(files_.mutex_);
      auto mapped = inode_->mapped.lock();
      if (!mapped) {
        mapped = std::make_shared<Aligned<uint8_t>>(inode_->now.size());
        if (!inode_->now.empty()) std::memcpy(mapped->data(), inode_->now.data(), inode_->now.size());
        inode_->mapped = mapped;
      }
      return {mapped, mapped->data(), mapped->size()};
    }

   private:
    FaultFileSystem& files_;
    InodePtr inode_;
  };

  uint64_t taken_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [path, inode] : names_) bytes += inode->taken_bytes();
    return bytes;
  }
  bool chance(double p) { return std::uniform_real_distribution<>(0, 1)(random_) < p; }

  // Counts; where this one is to fail or to be the last, does what it does of it.
  template <class Partly>
  void begin(const Partly& partly) {
    if (killed_) throw Killed();
    const int64_t n = n_operations_++;
    if (n == kill_at_) {
      partly();
      killed_ = true;
      throw Killed();
    }
    if (n >= fail_from_ && n < fail_until_) {
      partly();
      fail(fail_code_, "made to fail");
    }
  }

  // A torn write: some of its sectors, and of the last one perhaps a part.
  void apply(std::string& bytes, const Write& write, bool torn) {
    if (write.truncates) {
      bytes.resize(write.offset);
      return;
    }
    constexpr size_t kSector = 512;
    for (size_t at = 0; at < write.bytes.size();) {
      size_t n = std::min(kSector - (write.offset + at) % kSector, write.bytes.size() - at);
      const size_t next = at + n;
      if (torn) n = chance(0.5) ? 0 : chance(0.3) ? random_() % (n + 1) : n;
      if (n > 0) {
        if (bytes.size() < write.offset + at + n) bytes.resize(write.offset + at + n);
        std::memcpy(bytes.data() + write.offset + at, write.bytes.data() + at, n);
      }
      at = next;
    }
  }
  static void apply(std::map<std::string, InodePtr>& names, const NameChange& change) {
    const auto at = names.find(change.name);
    switch (change.kind) {
      case NameChange::Kind::create: names[change.name] = change.inode; break;
      case NameChange::Kind::remove:
        if (at != names.end()) names.erase(at);
        break;
      case NameChange::Kind::rename:
        if (at == names.end()) break;
        names[change.to] = at->second;
        names.erase(change.name);
        break;
    }
  }
  void change_name(const NameChange& change) {
    std::lock_guard lock(mutex_);
    change_name_now(change);
  }
  void change_name_now(const NameChange& change) {
    begin([] {});
    name_changes_.push_back(change);
    apply(names_, change);
  }
  void flush_names() {
    durable_names_ = names_;
    name_changes_.clear();
  }

  std::mutex mutex_;
  std::mt19937 random_;
  std::map<std::string, InodePtr> names_, durable_names_;
  std::vector<NameChange> name_changes_;
  int64_t n_operations_ = 0, kill_at_ = -1, fail_from_ = -1, fail_until_ = -1;
  ErrorCode fail_code_ = ErrorCode::store_unwritable;
  uint64_t capacity_ = UINT64_MAX;
  bool killed_ = false;
  std::weak_ptr<void> lock_;
};

}  // namespace sala
