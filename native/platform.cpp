// platform.h for POSIX systems. What only Linux has (/proc, /sys, affinity) is asked for and done without elsewhere.
// Nothing here knows what a file means.
#include "native/platform.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

namespace sala {

namespace {

std::string error_text(int error) { return std::system_category().message(error); }

size_t page_size() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  // 0, or what close() reports: on network file systems the first sign of a full disk.
  int close() { return fd_ < 0 ? 0 : ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

const char* kind_text(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "something else";
}

// Opens a regular file for reading and gives its size. Looks before it opens, since opening a device can do things;
// looks again after, since the path may mean something else by then. O_NONBLOCK: a pipe must not hold us up.
int open_regular(const std::string& path, ErrorCode code, size_t* n_bytes) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) fail(code, path, ": expected a file, found ", error_text(errno));
  if (!S_ISREG(status.st_mode)) fail(code, path, ": expected a regular file, found ", kind_text(status.st_mode));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) fail(code, path, ": expected a readable file, found ", error_text(errno));
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    fail(code, path, ": expected a regular file, found ", kind_text(status.st_mode));
  }
  if (static_cast<uint64_t>(status.st_size) > std::numeric_limits<size_t>::max() / 2) {
    ::close(fd);
    fail(code, path, ": expected a file that fits into memory addresses, found ", status.st_size, " bytes");
  }
  *n_bytes = static_cast<size_t>(status.st_size);
  return fd;
}

}  // namespace

// ---- files ----------------------------------------------------------------------------------------------------------

MappedFile::MappedFile(const std::string& path, ErrorCode code, bool may_grow) : path_(path) {
  size_t n_bytes = 0;
  FileDescriptor file(open_regular(path, code, &n_bytes));
  if (n_bytes == 0) return;
  void* mapping = ::mmap(nullptr, n_bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (mapping == MAP_FAILED) {
    const int error = errno;
    fail(error == ENOMEM ? ErrorCode::out_of_memory : code, path, ": could not map ", n_bytes,
         " bytes: ", error_text(error));
  }
  data_ = static_cast<const uint8_t*>(mapping);
  size_ = n_bytes;
  // A file still being written (a download) is caught here rather than as a fault while reading.
  struct stat status{};
  const bool seen = ::fstat(file.get(), &status) == 0;
  if (!seen || (may_grow ? static_cast<size_t>(status.st_size) < n_bytes : static_cast<size_t>(status.st_size) != n_bytes)) {
    close();
    fail(code, path, ": expected ", n_bytes, " bytes, found ", status.st_size, ": it changed while being opened");
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  close();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void MappedFile::advise_dont_need(size_t offset, size_t n_bytes) const {
  CHECK(offset <= size_ && n_bytes <= size_ - offset);
  if (n_bytes == 0) return;
  // Linux brings in pages around the one that is touched, so many bytes at once: they go as well. Rounding outwards costs a neighbour
  // another fault at most, since the mapping is read-only.
  const size_t around = std::max(page_size(), size_t{64} << 10);
  const size_t begin = offset / around * around;
  const size_t end = std::min(size_, (offset + n_bytes + around - 1) / around * around);
  ::madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void MappedFile::close() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
  data_ = nullptr;
  size_ = 0;
}

FileStatus file_status(const std::string& path) {
  FileStatus result;
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return result;
  if (S_ISREG(status.st_mode)) {
    result.kind = FileStatus::Kind::regular;
    result.size = static_cast<uint64_t>(status.st_size);
  } else {
    result.kind = S_ISDIR(status.st_mode) ? FileStatus::Kind::folder : FileStatus::Kind::other;
  }
#ifdef __APPLE__
  const timespec& modified = status.st_mtimespec;
#else
  const timespec& modified = status.st_mtim;
#endif
  result.mtime_ns = static_cast<int64_t>(modified.tv_sec) * 1'000'000'000 + modified.tv_nsec;
  result.inode = status.st_ino;
  return result;
}

std::string join_path(const std::string& folder, const std::string& name) {
  return folder.empty() || folder.back() == '/' ? folder + name : folder + "/" + name;
}

std::vector<std::string> list_folder(const std::string& path, ErrorCode code) {
  DIR* folder = ::opendir(path.c_str());
  if (!folder) fail(code, path, ": expected a folder, found ", error_text(errno));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(folder);
  if (error != 0) fail(code, path, ": could not list the folder: ", error_text(error));
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_file(const std::string& path, size_t max_bytes, ErrorCode code) {
  size_t n_bytes = 0;
  FileDescriptor file(open_regular(path, code, &n_bytes));
  if (n_bytes > max_bytes) fail(code, path, ": expected at most ", max_bytes, " bytes, found ", n_bytes);
  std::string text(n_bytes, '\0');
  size_t n_read = 0;
  while (n_read < n_bytes) {
    const ssize_t n = ::read(file.get(), text.data() + n_read, n_bytes - n_read);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(code, path, ": could not read byte ", n_read, ": ", error_text(errno));
    if (n == 0) fail(code, path, ": expected ", n_bytes, " bytes, found ", n_read, ": it changed while being read");
    n_read += static_cast<size_t>(n);
  }
  return text;
}

namespace {

[[noreturn]] void fail_write(const std::string& path, const char* what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  fail(full ? ErrorCode::store_full : ErrorCode::store_unwritable, path, ": could not ", what, ": ", error_text(error));
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void ensure_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || (errno == EEXIST && is_folder(path))) return;
  if (errno != ENOENT || folder_of(path) == path) fail_write(path, "make the folder", errno);
  ensure_folder(folder_of(path));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) fail_write(path, "make the folder", errno);
}

bool rename_file(const std::string& from, const std::string& to) { return ::rename(from.c_str(), to.c_str()) == 0; }

RandomAccessFile::RandomAccessFile(const std::string& path, ErrorCode code) : path_(path), code_(code) {
  size_t n_bytes = 0;
  fd_ = open_regular(path, code, &n_bytes);
  size_ = n_bytes;
}

RandomAccessFile::~RandomAccessFile() { ::close(fd_); }

void RandomAccessFile::read(uint64_t offset, void* to, size_t n_bytes) const {
  for (size_t n_read = 0; n_read < n_bytes;) {
    const ssize_t n = ::pread(fd_, static_cast<uint8_t*>(to) + n_read, n_bytes - n_read, static_cast<off_t>(offset + n_read));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(code_, path_, ": could not read byte ", offset + n_read, ": ", error_text(errno));
    if (n == 0) fail(code_, path_, ": expected ", n_bytes, " bytes from byte ", offset, ", found ", n_read);
    n_read += static_cast<size_t>(n);
  }
}

AppendFile::AppendFile(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) fail_write(path, "open for writing", errno);
  struct stat status{};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd_);
    fail(ErrorCode::store_unwritable, path, ": expected a regular file, found ", kind_text(status.st_mode));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

AppendFile::~AppendFile() { ::close(fd_); }

void AppendFile::append(const std::vector<Bytes>& parts) {
  for (const Bytes& part : parts) {
    for (size_t written = 0; written < part.size;) {
      const ssize_t n = ::write(fd_, static_cast<const uint8_t*>(part.data) + written, part.size - written);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_write(path_, "write", errno);
      written += static_cast<size_t>(n);
      size_ += static_cast<uint64_t>(n);
    }
  }
}

void AppendFile::truncate(uint64_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) fail_write(path_, "cut", errno);
  size_ = size;
}

void AppendFile::sync() {
  if (::fsync(fd_) != 0) fail_write(path_, "flush", errno);
}

void AppendFile::reserve(uint64_t n_bytes) noexcept {
#ifdef __linux__
  // What comes of it is seen by who writes there.
  [[maybe_unused]] const int ignored = ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(size_), static_cast<off_t>(n_bytes));
#endif
}

void sync_folder(const std::string& path) {
  FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder.get()) != 0) fail_write(path, "flush the folder", errno);
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail_write(path, "remove", errno);
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

bool FileLock::try_lock(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) fail_write(path, "open for locking", errno);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return false;
    // A file system without locks (some network ones): the election of the engine process is what is left.
    if (errno != ENOLCK && errno != ENOTSUP) fail_write(path, "lock", errno);
  }
  fd_ = file.release();
  return true;
}

// ---- machine and process --------------------------------------------------------------------------------------------

namespace {

// Files of /proc and /sys: short, of unknown size, absent on other systems.
std::optional<std::string> system_text(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<int64_t> number(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text->c_str(), &end, 10);
  if (end == text->c_str() || errno != 0) return std::nullopt;
  return value;
}

// The number after "<key> " or "<key>:" at the start of a line, times 1024 where "kB" follows it.
std::optional<int64_t> field(const std::optional<std::string>& text, const std::string& key) {
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) != 0 || line.size() == key.size()) continue;
    if (line[key.size()] != ':' && line[key.size()] != ' ') continue;
    const auto value = number(line.substr(key.size() + 1));
    if (value && line.size() > 2 && line.compare(line.size() - 2, 2, "kB") == 0) return *value * 1024;
    return value;
  }
  return std::nullopt;
}

// The folders of the process's cgroup and of all groups above it, for version 2 and for a controller of version 1. A
// limit of any of them holds. Inside a container the path may name a folder that only the host sees; the mount's root
// counts then.
struct CgroupFolders {
  std::vector<std::string> unified, v1;
};

CgroupFolders cgroup_folders(const std::string& root, const std::string& controller) {
  CgroupFolders folders;
  const auto add = [&](std::vector<std::string>& to, const std::string& mount, std::string path) {
    for (;; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      to.push_back(mount + path);
      if (path.empty()) break;
    }
  };
  std::istringstream lines(system_text(root + "/proc/self/cgroup").value_or(""));
  for (std::string line; std::getline(lines, line);) {  // "4:cpu,cpuacct:/a/b" or "0::/a/b"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line.substr(second + 1, 1) != "/") continue;
    const std::string path = line.substr(second + 1);
    std::istringstream names(line.substr(first + 1, second - first - 1));
    if (second == first + 1) add(folders.unified, root + "/sys/fs/cgroup", path);
    for (std::string name; std::getline(names, name, ',');) {
      if (name == controller) add(folders.v1, root + "/sys/fs/cgroup/" + controller, path);
    }
  }
  return folders;
}

std::vector<int> usable_cpus() {
  std::vector<int> cpus;
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
#endif
  if (cpus.empty()) {
    const int n_cpus = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (int cpu = 0; cpu < n_cpus; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

int physical_cores(const std::string& root) {
  std::set<std::pair<int64_t, int64_t>> cores;  // (package, core); a CPU without topology is a core of its own
  for (const int cpu : usable_cpus()) {
    const std::string topology = root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const auto package = number(system_text(topology + "physical_package_id"));
    const auto core = number(system_text(topology + "core_id"));
    cores.insert(package && core ? std::pair{*package, *core} : std::pair<int64_t, int64_t>{-1, -1 - cpu});
  }
  double limit = static_cast<double>(cores.size());
  const CgroupFolders folders = cgroup_folders(root, "cpu");
  for (const std::string& folder : folders.unified) {  // "max 100000" or "150000 100000"
    std::istringstream text(system_text(folder + "/cpu.max").value_or(""));
    double quota = 0, period = 0;
    if (text >> quota >> period && quota > 0 && period > 0) limit = std::min(limit, quota / period);
  }
  for (const std::string& folder : folders.v1) {
    const double quota = static_cast<double>(number(system_text(folder + "/cpu.cfs_quota_us")).value_or(-1));
    const double period = static_cast<double>(number(system_text(folder + "/cpu.cfs_period_us")).value_or(-1));
    if (quota > 0 && period > 0) limit = std::min(limit, quota / period);
  }
  // One and a half cores of quota feed two threads; rounding down would leave a third of it unused.
  return std::max(1, static_cast<int>(limit + 0.5));
}

MemoryStatus system_memory(const std::string& root) {
  MemoryStatus memory;
  const auto meminfo = system_text(root + "/proc/meminfo");
  if (const auto total = field(meminfo, "MemTotal")) {
    memory.total_bytes = static_cast<uint64_t>(*total);
    memory.available_bytes = static_cast<uint64_t>(field(meminfo, "MemAvailable").value_or(*total));
  } else {
    memory.total_bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * page_size();
    memory.available_bytes = memory.total_bytes;
  }
  // A group's page cache is given back when its processes need the memory, so it does not count as used.
  using Value = std::optional<int64_t>;
  const auto restrict_to = [&, machine_bytes = memory.total_bytes](Value limit, Value used, Value file_cache) {
    // Version 1 writes "no limit" as a number near 2^63.
    if (!limit || *limit < 0 || static_cast<uint64_t>(*limit) >= machine_bytes) return;
    const int64_t taken = std::max<int64_t>(0, used.value_or(0) - file_cache.value_or(0));
    const int64_t left = std::max<int64_t>(0, *limit - taken);
    memory.total_bytes = std::min(memory.total_bytes, static_cast<uint64_t>(*limit));
    memory.available_bytes = std::min(memory.available_bytes, static_cast<uint64_t>(left));
  };
  const CgroupFolders folders = cgroup_folders(root, "memory");
  for (const std::string& folder : folders.unified) {
    restrict_to(number(system_text(folder + "/memory.max")), number(system_text(folder + "/memory.current")),
                field(system_text(folder + "/memory.stat"), "inactive_file"));
  }
  for (const std::string& folder : folders.v1) {
    restrict_to(number(system_text(folder + "/memory.limit_in_bytes")),
                number(system_text(folder + "/memory.usage_in_bytes")),
                field(system_text(folder + "/memory.stat"), "total_inactive_file"));
  }
  return memory;
}

ProcessMemory process_memory() {
  ProcessMemory memory;
  const auto status = system_text("/proc/self/status");
  if (const auto resident = field(status, "VmRSS")) {
    memory.resident_bytes = static_cast<uint64_t>(*resident);
    memory.private_bytes =
        static_cast<uint64_t>(field(status, "RssAnon").value_or(0) + field(status, "VmSwap").value_or(0));
    return memory;
  }
  // No /proc: the peak is the nearest that POSIX systems agree on (kilobytes, but bytes on macOS).
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  memory.resident_bytes = static_cast<uint64_t>(usage.ru_maxrss);
#else
  memory.resident_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
  memory.private_bytes = memory.resident_bytes;
  return memory;
}

std::shared_ptr<uint8_t> huge_page_memory(size_t n_bytes) {
  constexpr size_t border = kHugePage;
  if (n_bytes == 0 || n_bytes > std::numeric_limits<size_t>::max() - 2 * border) return nullptr;
  n_bytes = (n_bytes + border - 1) / border * border;
  // What is mapped too much for the border is never touched, so it costs no memory.
  void* const mapping = ::mmap(nullptr, n_bytes + border, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  uint8_t* const begin = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(mapping) + border - 1) / border * border);
#ifdef MADV_HUGEPAGE
  ::madvise(begin, n_bytes, MADV_HUGEPAGE);  // a wish
#endif
  return {begin, [mapping, n_bytes](uint8_t*) { ::munmap(mapping, n_bytes + border); }};
}

void release_free_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

void set_thread_niceness(int niceness) {
  CHECK(niceness >= 0 && niceness <= 19);
#ifdef __linux__
  // There the process named 0 is the calling thread.
  ::setpriority(PRIO_PROCESS, 0, niceness);
#endif
}

}  // namespace sala
