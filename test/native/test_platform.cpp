// native/platform.h: what is refused and how, that a write is all or nothing, and limits of made-up machines under a
// root of their own.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "native/platform.h"
#include "test/native/model_files.h"

using namespace sala;

namespace {

void write_system_file(const std::string& root, const std::string& path, const std::string& text) {
  const std::filesystem::path full = root + path;
  std::filesystem::create_directories(full.parent_path());
  write_text(full.string(), text);
}

}  // namespace

TEST_CASE("a mapped file has the file's bytes, also after its pages were given up") {
  TemporaryFolder folder;
  std::string text(3 * 4096 + 17, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 7);
  write_text(folder / "a", text);
  MappedFile file(folder / "a", ErrorCode::model_invalid);
  CHECK(file.path() == folder / "a");
  const auto same = [&] { return std::string(reinterpret_cast<const char*>(file.data()), file.size()) == text; };
  CHECK(same());
  file.advise_dont_need(0, file.size());
  file.advise_dont_need(5000, 1);
  file.advise_dont_need(file.size(), 0);
  CHECK(same());
  CHECK_THROWS_AS(file.advise_dont_need(1, file.size()), EngineError);

  const uint8_t* data = file.data();
  MappedFile moved(std::move(file));
  CHECK(moved.data() == data);
  CHECK(file.size() == 0);
  file = std::move(moved);
  CHECK(same());
  file.close();
  CHECK(file.data() == nullptr);
  CHECK(file.size() == 0);
}

TEST_CASE("an empty file maps to nothing, a link to its target") {
  TemporaryFolder folder;
  write_text(folder / "empty", "");
  CHECK(MappedFile(folder / "empty", ErrorCode::model_invalid).size() == 0);
  write_text(folder / "target", "12345");
  std::filesystem::create_symlink(folder / "target", folder / "link");
  CHECK(MappedFile(folder / "link", ErrorCode::model_invalid).size() == 5);
}

TEST_CASE("only regular files are read, and what is refused says what it is") {
  TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE((folder / "socket").size() < sizeof address.sun_path);
  std::strcpy(address.sun_path, (folder / "socket").c_str());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  const std::vector<std::pair<std::string, std::string>> cases = {{folder.path, "a folder"},
                                                                  {folder / "pipe", "a pipe"},
                                                                  {folder / "socket", "a socket"},
                                                                  {"/dev/zero", "a device"},
                                                                  {folder / "missing", "No such file"}};
  for (const auto& [path, found] : cases) {
    check_error(ErrorCode::store_invalid, {path, "expected", found},
                [&] { MappedFile(path, ErrorCode::store_invalid); });
    check_error(ErrorCode::model_invalid, {path, "expected", found},
                [&] { read_file(path, 100, ErrorCode::model_invalid); });
  }
  ::close(fd);
}

TEST_CASE("file_status tells kinds, size and time") {
  TemporaryFolder folder;
  write_text(folder / "a", "123");
  const FileStatus status = file_status(folder / "a");
  CHECK(status.kind == FileStatus::Kind::regular);
  CHECK(status.size == 3);
  CHECK(status.mtime_ns > 1'600'000'000'000'000'000);
  CHECK(status.inode != 0);
  CHECK_FALSE(is_folder(folder / "a"));
  CHECK(is_folder(folder.path));
  CHECK(file_status("/dev/null").kind == FileStatus::Kind::other);
  CHECK(file_status(folder / "b").kind == FileStatus::Kind::none);
}

TEST_CASE("list_folder gives names in order") {
  TemporaryFolder folder;
  CHECK(list_folder(folder.path, ErrorCode::model_invalid).empty());
  for (const char* name : {"b", "a", ".c"}) write_text(folder / name, "");
  CHECK(list_folder(folder.path, ErrorCode::model_invalid) == std::vector<std::string>{".c", "a", "b"});
  check_error(ErrorCode::store_invalid, {folder / "a"}, [&] { list_folder(folder / "a", ErrorCode::store_invalid); });
  CHECK(join_path("a", "b") == "a/b");
  CHECK(join_path("a/", "b") == "a/b");
  CHECK(join_path("", "b") == "b");
}

TEST_CASE("read_file reads up to its limit") {
  TemporaryFolder folder;
  write_text(folder / "a", std::string("1\0002345", 6));
  CHECK(read_file(folder / "a", 6, ErrorCode::model_invalid) == std::string("1\0002345", 6));
  check_error(ErrorCode::model_invalid, {folder / "a", "at most 5", "found 6"},
              [&] { read_file(folder / "a", 5, ErrorCode::model_invalid); });
}

TEST_CASE("an AppendFile grows, is cut, and is the owner's alone; what it reserves is not in its size") {
  TemporaryFolder folder;
  const std::string large(1 << 20, 'y');
  {
    AppendFile file(folder / "a");
    file.append({{"123", 3}, {"", 0}, {large.data(), large.size()}});
    file.reserve(1 << 16);
    file.sync();
    CHECK(file.size() == 3 + large.size());
  }
  CHECK(read_text(folder / "a") == "123" + large);
  struct stat status{};
  REQUIRE(::stat((folder / "a").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  AppendFile file(folder / "a");
  file.truncate(2);
  file.append({{"new", 3}});
  CHECK(read_text(folder / "a") == "12new");
}

TEST_CASE("ensure_folder makes what is missing, for the owner only") {
  TemporaryFolder folder;
  ensure_folder(folder / "a/b");
  ensure_folder(folder / "a/b");
  struct stat status{};
  REQUIRE(::stat((folder / "a").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);
  write_text(folder / "file", "");
  check_error(ErrorCode::store_unwritable, {folder / "file"}, [&] { ensure_folder(folder / "file/c"); });
}

TEST_CASE("rename_file replaces, or changes nothing") {
  TemporaryFolder folder;
  write_text(folder / "a", "new");
  write_text(folder / "b", "old");
  CHECK(rename_file(folder / "a", folder / "b"));
  CHECK(read_text(folder / "b") == "new");
  CHECK_FALSE(rename_file(folder / "a", folder / "b"));
  CHECK(read_text(folder / "b") == "new");
}

TEST_CASE("a file that cannot be written says why") {
  TemporaryFolder folder;
  const auto open = [](const std::string& path) { return [path] { AppendFile file(path); }; };
  check_error(ErrorCode::store_unwritable, {folder / "none/a", "No such file"}, open(folder / "none/a"));
  write_text(folder / "file", "");
  check_error(ErrorCode::store_unwritable, {folder / "file/a", "Not a directory"}, open(folder / "file/a"));
  std::filesystem::create_directories(folder / "folder");
  check_error(ErrorCode::store_unwritable, {folder / "folder"}, open(folder / "folder"));
}

TEST_CASE("a full disk is store_full, and what was there stays") {
  TemporaryFolder folder;
  write_text(folder / "a", "old");
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string text(5000, 'z');
  AppendFile file(folder / "a");
  check_error(ErrorCode::store_full, {folder / "a", "could not write"}, [&] { file.append({{text.data(), text.size()}}); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(file.size() <= 1000);
  file.truncate(3);
  CHECK(read_text(folder / "a") == "old");
}

TEST_CASE("physical_cores counts cores once and heeds quotas of all groups above") {
  const int here = physical_cores();
  CHECK(here >= 1);
  CHECK(here <= static_cast<int>(::sysconf(_SC_NPROCESSORS_CONF)));

  TemporaryFolder root;
  const int n_cpus = physical_cores(root.path);  // nothing known: every CPU is a core
  CHECK(n_cpus >= 1);
  const auto topology = [&](int cpu, const std::string& core) {
    const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    write_system_file(root.path, path + "physical_package_id", "0\n");
    write_system_file(root.path, path + "core_id", core + "\n");
  };
  for (int cpu = 0; cpu < 1024; ++cpu) topology(cpu, "7");
  CHECK(physical_cores(root.path) == 1);
  for (int cpu = 0; cpu < 1024; ++cpu) topology(cpu, std::to_string(cpu));
  CHECK(physical_cores(root.path) == n_cpus);

  write_system_file(root.path, "/proc/self/cgroup", "0::/a/b\n");
  write_system_file(root.path, "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(physical_cores(root.path) == n_cpus);
  write_system_file(root.path, "/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
  CHECK(physical_cores(root.path) == 1);
  write_system_file(root.path, "/sys/fs/cgroup/a/cpu.max", "10000 100000\n");
  CHECK(physical_cores(root.path) == 1);
  write_system_file(root.path, "/sys/fs/cgroup/a/cpu.max", "10000000 100000\n");
  CHECK(physical_cores(root.path) == n_cpus);

  write_system_file(root.path, "/proc/self/cgroup", "5:memory:/\n4:cpu,cpuacct:/c\n");
  write_system_file(root.path, "/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
  write_system_file(root.path, "/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
  CHECK(physical_cores(root.path) == n_cpus);
  write_system_file(root.path, "/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "60000\n");
  CHECK(physical_cores(root.path) == 1);
}

TEST_CASE("system_memory is the machine's or the smallest group's") {
  const MemoryStatus here = system_memory();
  CHECK(here.total_bytes > 64 << 20);
  CHECK(here.available_bytes > 0);
  CHECK(here.available_bytes <= here.total_bytes);

  TemporaryFolder root;
  write_system_file(root.path, "/proc/meminfo", "MemTotal:    1000 kB\nMemFree:  100 kB\nMemAvailable:   800 kB\n");
  CHECK(system_memory(root.path).total_bytes == 1000 * 1024);
  CHECK(system_memory(root.path).available_bytes == 800 * 1024);

  write_system_file(root.path, "/proc/self/cgroup", "0::/a/b\n");
  write_system_file(root.path, "/sys/fs/cgroup/a/memory.max", "max\n");
  CHECK(system_memory(root.path).total_bytes == 1000 * 1024);
  write_system_file(root.path, "/sys/fs/cgroup/a/memory.max", "600000\n");
  write_system_file(root.path, "/sys/fs/cgroup/a/memory.current", "500000\n");
  write_system_file(root.path, "/sys/fs/cgroup/a/memory.stat", "anon 300000\ninactive_file 150000\n");
  write_system_file(root.path, "/sys/fs/cgroup/a/b/memory.max", "400000\n");
  write_system_file(root.path, "/sys/fs/cgroup/a/b/memory.current", "10000\n");
  CHECK(system_memory(root.path).total_bytes == 400000);
  CHECK(system_memory(root.path).available_bytes == 250000);  // what the outer group has left
  write_system_file(root.path, "/sys/fs/cgroup/a/memory.current", "900000\n");
  CHECK(system_memory(root.path).available_bytes == 0);

  write_system_file(root.path, "/proc/self/cgroup", "9:memory:/c\n");
  write_system_file(root.path, "/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(system_memory(root.path).total_bytes == 1000 * 1024);
  write_system_file(root.path, "/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "500000\n");
  write_system_file(root.path, "/sys/fs/cgroup/memory/c/memory.usage_in_bytes", "200000\n");
  write_system_file(root.path, "/sys/fs/cgroup/memory/c/memory.stat", "total_inactive_file 50000\n");
  CHECK(system_memory(root.path).available_bytes == 350000);
}

TEST_CASE("private memory counts what was written, not what is mapped") {
  constexpr size_t kSize = 64 << 20;
  const uint64_t before = process_memory().private_bytes;
  {
    std::vector<char> buffer(kSize, 'x');
    const ProcessMemory with = process_memory();
    CHECK(with.private_bytes >= before + kSize * 9 / 10);
    CHECK(with.resident_bytes >= with.private_bytes);
  }
  TemporaryFolder folder;
  write_text(folder / "a", std::string(kSize, 'x'));
  release_free_memory();
  const uint64_t unmapped = process_memory().private_bytes;
  MappedFile file(folder / "a", ErrorCode::model_invalid);
  unsigned sum = 0;
  for (size_t i = 0; i < kSize; i += 1024) sum += file.data()[i];
  CHECK(sum == kSize / 1024 * 'x');
  const ProcessMemory read = process_memory();
  CHECK(read.private_bytes < unmapped + kSize / 8);
  file.advise_dont_need(0, file.size());
  CHECK(process_memory().resident_bytes < read.resident_bytes - kSize / 2);
}

TEST_CASE("niceness is the thread's own") {
#ifdef __linux__
  const int before = ::getpriority(PRIO_PROCESS, 0);
  int lowered = 0;
  std::thread([&] {
    set_thread_niceness(11);
    lowered = ::getpriority(PRIO_PROCESS, 0);
  }).join();
  CHECK(lowered == std::max(11, before));
  CHECK(::getpriority(PRIO_PROCESS, 0) == before);
#endif
}
