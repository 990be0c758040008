#include "native/store/file_system.h"

namespace sala {

namespace {

class SystemWritableFile : public WritableFile {
 public:
  explicit SystemWritableFile(const std::string& path) : file_(path) {}
  uint64_t size() const override { return file_.size(); }
  void append(const std::vector<Bytes>& parts) override { file_.append(parts); }
  void truncate(uint64_t size) override { file_.truncate(size); }
  void sync() override { file_.sync(); }
  void reserve(uint64_t n_bytes) noexcept override { file_.reserve(n_bytes); }

 private:
  AppendFile file_;
};

class SystemReadableFile : public ReadableFile {
 public:
  explicit SystemReadableFile(const std::string& path) : path_(path), file_(path, ErrorCode::store_invalid) {}
  void read(uint64_t offset, void* to, size_t n_bytes) const override { file_.read(offset, to, n_bytes); }
  FileBytes map() const override {
    auto mapped = std::make_shared<MappedFile>(path_, ErrorCode::store_invalid, true);
    const uint8_t* data = mapped->data();
    const size_t size = mapped->size();
    const auto let_go = [file = mapped.get()](size_t offset, size_t n_bytes) { file->advise_dont_need(offset, n_bytes); };
    return {std::move(mapped), data, size, let_go};
  }

 private:
  std::string path_;
  RandomAccessFile file_;
};

class SystemFiles : public FileSystem {
 public:
  void make_folder(const std::string& path) override { ensure_folder(path); }
  std::vector<std::string> list(const std::string& folder) override { return list_folder(folder, ErrorCode::store_unwritable); }
  std::optional<uint64_t> size(const std::string& path) override {
    const FileStatus status = file_status(path);
    if (status.kind != FileStatus::Kind::regular) return std::nullopt;
    return status.size;
  }
  std::unique_ptr<WritableFile> open_append(const std::string& path) override { return std::make_unique<SystemWritableFile>(path); }
  std::unique_ptr<ReadableFile> open_read(const std::string& path) override { return std::make_unique<SystemReadableFile>(path); }
  void rename(const std::string& from, const std::string& to) override {
    if (!rename_file(from, to)) fail(ErrorCode::store_unwritable, from, ": could not rename it to ", to);
  }
  void remove(const std::string& path) override { remove_file(path); }
  void sync_folder(const std::string& path) override { sala::sync_folder(path); }
  std::shared_ptr<void> lock(const std::string& path) override {
    auto lock = std::make_shared<FileLock>();
    return lock->try_lock(path) ? lock : nullptr;
  }
};

}  // namespace

FileSystem& system_files() {
  static SystemFiles files;
  return files;
}

}  // namespace sala
