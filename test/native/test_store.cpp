// native/store/store.h on a file system in memory and on the real one: what it holds against a model, corruption of every byte, full
// and unwritable disks, room, threads. What a crash leaves is test_store_crash.cpp.
#include <thread>

#include "native/store/crc32c.h"
#include "test/native/code_of.h"
#include "test/native/model_files.h"
#include "test/native/store_cases.h"

using namespace sala;

namespace {

std::string random_text(std::mt19937& random, size_t n) {
  std::string text(random() % (n + 1), ' ');
  for (char& c : text) c = char(random());
  return text;
}

// A store with sealed and growing files, a MANIFEST and a log with something in each. Ids below 24, some removed.
StoreModel fill(Store& store) {
  StoreModel model;
  for (int id = 0; id < 24; ++id) {
    add_segment(store, id);
    model.segments.insert(id);
    store.put(StoreTable::files, "file " + std::to_string(id), "known");
    model.tables[0]["file " + std::to_string(id)] = "known";
    if (id == 18) store.checkpoint();
    if (id % 6 == 5) store.commit();
  }
  store.remove({key_of(3), key_of(20)});
  model.segments.erase(3);
  model.segments.erase(20);
  store.erase(StoreTable::files, "file 0");
  model.tables[0].erase("file 0");
  store.put(StoreTable::roots, std::string("\0\n", 2), "");
  model.tables[2][std::string("\0\n", 2)] = "";
  store.commit();
  return model;
}

// What was damaged is found and moved away from, the rest is served, and the store takes more.
void heal(Store& store) {
  store.verify();
  contents_of(store, 24);
  add_segment(store, 40);
  while (store.compact(1 << 20)) {
  }
  store.commit();
  require_sound(store);
}

}  // namespace

TEST_CASE("store: CRC-32C of the vectors of RFC 3720") {
  CHECK(crc32c("123456789", 9) == 0xe3069283u);
  const std::string zeros(32, '\0'), ones(32, '\xff');
  CHECK(crc32c(zeros.data(), 32) == 0x8a9136aau);
  CHECK(crc32c(ones.data(), 32) == 0x62a8ab43u);
  CHECK(crc32c(zeros.data() + 10, 22, crc32c(zeros.data(), 10)) == 0x8a9136aau);
}

TEST_CASE("store: what was committed is there when it is opened again, on the file system of this machine") {
  TemporaryFolder folder;
  StoreModel model;
  {
    Store store(system_files(), folder / "s", kIdentity, small_options());
    model = fill(store);
    CHECK(contents_of(store, 24) == model);
    CHECK(store.statistics().n_segments == 22);
    // One process at a time.
    CHECK(code_of([&] { Store(system_files(), folder / "s", kIdentity, small_options()); }) == ErrorCode::store_unwritable);
    add_segment(store, 30);  // not committed
  }
  Store store(system_files(), folder / "s", kIdentity, small_options());
  CHECK(contents_of(store, 31) == model);
  const Verification found = store.verify();
  CHECK(found.n_segments == 22);
  CHECK(found.damaged.empty());
  CHECK(found.findings.empty());
  // Real bytes, not only those of the segments, are what counts.
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "s")) bytes += entry.file_size();
  CHECK(store.statistics().bytes >= bytes);
  CHECK(store.statistics().bytes < bytes + 3 * 4096);
}

TEST_CASE("store: another model's is begun anew, a newer one's is refused") {
  FaultFileSystem files(1);
  {
    Store store(files, kFolder, kIdentity, small_options());
    fill(store);
  }
  {
    auto newer = files.contents();
    const std::string current = newer.at(kFolder + "/CURRENT"), manifest = kFolder + "/" + current.substr(0, current.size() - 1);
    std::string bytes = newer.at(manifest);
    const std::string sound = bytes;
    bytes[8] = 2;
    files.replace(manifest, bytes);
    // A version that its own checksum does not know is no version.
    CHECK(Store(files, kFolder, kIdentity, small_options()).keys().empty());
    FaultFileSystem again(2);
    for (const auto& [path, content] : newer) again.replace(path, content);
    const uint32_t checksum = crc32c(bytes.data(), 12);
    for (size_t i = 0; i < 4; ++i) bytes[12 + i] = char(uint8_t(checksum >> 8 * i));
    again.replace(manifest, bytes);
    CHECK(code_of([&] { Store(again, kFolder, kIdentity, small_options()); }) == ErrorCode::store_newer);
    CHECK(again.contents().size() == newer.size());
    again.replace(manifest, sound);
    CHECK(Store(again, kFolder, kIdentity, small_options()).keys().size() == 22);
    Store other(again, kFolder, "another model", small_options());
    CHECK(other.keys().empty());
    add_segment(other, 1);
    other.commit();
  }
}

TEST_CASE("store: any history of calls equals a map's") {
  const uint32_t seed = seed_of("store history");
  std::mt19937 random(seed);
  constexpr int kIds = 60;
  for (int round = 0; round < 8; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    FaultFileSystem files(random());
    StoreOptions options = small_options();
    options.segment_file_bytes = 4096 + random() % 20000;
    options.checkpoint_bytes = random() % 8000;
    auto store = std::make_unique<Store>(files, kFolder, kIdentity, options);
    StoreModel model;
    for (int step = 0; step < 600; ++step) {
      const int id = int(random() % kIds);
      const StoreTable table = StoreTable(random() % kStoreTables);
      const std::string key = std::to_string(random() % 20);
      switch (random() % 10) {
        case 0: case 1: case 2:
          add_segment(*store, id);
          model.segments.insert(id);
          break;
        case 3: case 4: {
          std::string value = random_text(random, 100);
          model.tables[size_t(table)][key] = value;
          store->put(table, key, value);
          break;
        }
        case 5:
          model.tables[size_t(table)].erase(key);
          store->erase(table, key);
          break;
        case 6:
          CHECK(store->remove({key_of(id)}).n_segments == model.segments.erase(id));
          break;
        case 7:
          random() % 8 ? store->commit() : store->checkpoint();
          break;
        case 8: {
          const auto at = model.tables[size_t(table)].find(key);
          CHECK(store->get(table, key) == (at == model.tables[size_t(table)].end() ? std::nullopt : std::optional(at->second)));
          if (random() % 4 == 0) store->compact(random() % 20000);
          if (random() % 40 == 0) store->purge();
          break;
        }
        case 9:
          if (random() % 10) break;
          store->commit();
          store.reset();
          store = std::make_unique<Store>(files, kFolder, kIdentity, options);
          break;
      }
      if (step % 50 == 49) REQUIRE(contents_of(*store, kIds) == model);
    }
    CHECK(store->take_findings().empty());
    require_sound(*store);
  }
}

TEST_CASE("store: every byte flipped, one at a time: seen before it is used, and healed") {
  FaultFileSystem original(3);
  StoreModel model;
  {
    Store store(original, kFolder, kIdentity, small_options());
    model = fill(store);
  }
  const auto contents = original.contents();
  const int stride = int(environment_number("SALA_FLIP_STRIDE", 37));
  size_t n_flips = 0, n_noticed = 0;
  for (const auto& [path, bytes] : contents) {
    for (size_t at = 0; at < bytes.size(); at += at < 256 ? 1 : size_t(stride)) {
      FaultFileSystem files(4);
      for (const auto& [name, content] : contents) files.replace(name, content);
      std::string damaged = bytes;
      damaged[at] = char(damaged[at] ^ 1 << (at % 8));
      files.replace(path, damaged);
      CAPTURE(path);
      CAPTURE(at);
      Store store(files, kFolder, kIdentity, small_options());
      const bool noticed_at_open = !store.take_findings().empty();
      const Verification found = store.verify();
      const bool noticed = noticed_at_open || !found.findings.empty();
      // Bytes of removed segments in a file that is not sealed are nobody's.
      const bool may_be_dead = path.find("seg-") != std::string::npos;
      REQUIRE((noticed || may_be_dead));
      n_noticed += noticed;
      ++n_flips;
      // What is left is right, and is all there but for what is named.
      const StoreModel left = contents_of(store, 24);
      if (!noticed_at_open) {
        REQUIRE(left.segments.size() + found.damaged.size() == model.segments.size());
        REQUIRE(left.tables == model.tables);
      }
      if (n_flips % 8 != 0) continue;
      // Healed: what was lost is added again, and damaged files are let go.
      for (int id : model.segments) add_segment(store, id);
      while (store.compact(1 << 20)) {
      }
      store.commit();
      require_sound(store);
      // Where the log was lost, what it removed is back: sound all the same.
      const std::set<int> healed = contents_of(store, 24).segments;
      REQUIRE(std::includes(healed.begin(), healed.end(), model.segments.begin(), model.segments.end()));
    }
  }
  std::printf("store: %zu flips, %zu noticed\n", n_flips, n_noticed);
  CHECK(n_noticed > n_flips * 9 / 10);
}

TEST_CASE("store: cut at every length") {
  FaultFileSystem original(5);
  {
    Store store(original, kFolder, kIdentity, small_options());
    fill(store);
  }
  const auto contents = original.contents();
  const size_t stride = environment_number("SALA_FLIP_STRIDE", 37);
  for (const auto& [path, bytes] : contents) {
    for (size_t length = 0; length < bytes.size(); length += path.find("seg-") == std::string::npos ? 1 : stride) {
      FaultFileSystem files(6);
      for (const auto& [name, content] : contents) files.replace(name, content);
      files.replace(path, bytes.substr(0, length));
      CAPTURE(path);
      CAPTURE(length);
      Store store(files, kFolder, kIdentity, small_options());
      // A log that is cut right behind a commit looks like one that ended there.
      const bool noticed = !store.take_findings().empty();
      const bool may_be_sound = path.find("wal-") != std::string::npos && length >= kWalHeaderBytes;
      CHECK((noticed || may_be_sound));
      heal(store);
    }
  }
}

TEST_CASE("store: any file gone, or another one's in its place") {
  FaultFileSystem original(7);
  {
    Store store(original, kFolder, kIdentity, small_options());
    fill(store);
  }
  const auto contents = original.contents();
  for (const auto& [path, bytes] : contents) {
    for (const auto& [other, other_bytes] : contents) {
      FaultFileSystem files(8);
      for (const auto& [name, content] : contents) {
        if (name != path || name != other) files.replace(name, name == path ? other_bytes : content);
      }
      CAPTURE(path);
      CAPTURE(other);
      Store store(files, kFolder, kIdentity, small_options());
      heal(store);
    }
  }
}

TEST_CASE("store: a disk that is full, or fails, for a while: nothing committed is lost, all goes on after it") {
  const uint32_t seed = seed_of("store failures");
  std::mt19937 random(seed);
  for (int round = 0; round < 400; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    FaultFileSystem files(random());
    StoreModel committed, current;
    std::set<int> lost;  // dropped, since they could not be flushed
    {
      Store store(files, kFolder, kIdentity, small_options());
      const ErrorCode code = random() % 2 ? ErrorCode::store_full : ErrorCode::store_unwritable;
      const bool full = code == ErrorCode::store_full && random() % 2;
      if (full) files.set_capacity(random() % 60000);
      else files.fail_at(random() % 40, 1 + random() % 6, code);
      for (int step = 0; step < 40; ++step) {
        const int id = int(random() % 40);
        try {
          switch (random() % 4) {
            case 0: case 1:
              add_segment(store, id);
              current.segments.insert(id);
              break;
            case 2:
              store.put(StoreTable::versions, std::to_string(id), std::to_string(step));
              current.tables[1][std::to_string(id)] = std::to_string(step);
              break;
            case 3:
              store.commit();
              committed = current;
              break;
          }
        } catch (const EngineError& error) {
          REQUIRE((error.code() == code || full));
        }
        for (auto at = current.segments.begin(); at != current.segments.end();) {
          if (store.find(key_of(*at))) {
            ++at;
            continue;
          }
          REQUIRE(!committed.segments.count(*at));
          at = current.segments.erase(at);
        }
      }
      REQUIRE(contents_of(store, 40) == current);
      files.set_capacity(UINT64_MAX);
      files.fail_at(-1, 0, code);
      store.commit();
      add_segment(store, 41);
      store.commit();
      current.segments.insert(41);
      REQUIRE(contents_of(store, 42) == current);
    }
    files.crash();
    Store store(files, kFolder, kIdentity, small_options());
    REQUIRE(contents_of(store, 42) == current);
    require_sound(store);
  }
}

TEST_CASE("store: a folder that cannot be written is read") {
  if (geteuid() == 0) {
    // Root may write anywhere: a lock that is no file stands for a disk that refuses.
    TemporaryFolder folder;
    StoreModel model;
    {
      Store store(system_files(), folder / "s", kIdentity, small_options());
      model = fill(store);
    }
    std::filesystem::remove(folder / "s/LOCK");
    std::filesystem::create_directory(folder / "s/LOCK");
    Store store(system_files(), folder / "s", kIdentity, small_options());
    REQUIRE(store.read_only());
    CHECK(contents_of(store, 24) == model);
    CHECK(code_of([&] { add_segment(store, 40); }) == ErrorCode::store_unwritable);
    CHECK(code_of([&] { store.commit(); }) == ErrorCode::store_unwritable);
    require_sound(store);
    return;
  }
  TemporaryFolder folder;
  {
    Store store(system_files(), folder / "s", kIdentity, small_options());
    fill(store);
  }
  std::filesystem::permissions(folder / "s", std::filesystem::perms(0500));
  std::filesystem::permissions(folder / "s/LOCK", std::filesystem::perms(0400));
  {
    Store store(system_files(), folder / "s", kIdentity, small_options());
    CHECK(store.read_only());
    CHECK(store.keys().size() == 22);
    CHECK(code_of([&] { add_segment(store, 40); }) == ErrorCode::store_unwritable);
  }
  std::filesystem::permissions(folder / "s", std::filesystem::perms(0700));
}

TEST_CASE("store: the cap is kept at every moment; room is made of what nobody has, oldest first") {
  FaultFileSystem files(9);
  StoreOptions options = small_options();
  options.max_bytes = 512 << 10;
  Store store(files, kFolder, kIdentity, options);
  int id = 0;
  const auto add_until_full = [&] {
    for (;; ++id) {
      try {
        add_segment(store, id);
      } catch (const EngineError& error) {
        REQUIRE(error.code() == ErrorCode::store_full);
        return;
      }
      REQUIRE(files.used_bytes() <= options.max_bytes);
      if (id % 3 == 0) store.put(StoreTable::files, "file " + std::to_string(id % 50), std::to_string(id));
      if (id % 5 == 0) store.commit();
      REQUIRE(files.used_bytes() <= options.max_bytes);
    }
  };
  add_until_full();
  REQUIRE(id > 40);
  // Two that are in use, far apart.
  const std::vector<int> held{1, id / 2};
  for (int one : held) REQUIRE(store.acquire(key_of(one)));
  for (int round = 0; round < 12; ++round) {
    const int n_before = id;
    REQUIRE(store.make_room(store.needed_bytes(small_layout(12))));
    REQUIRE(files.used_bytes() <= options.max_bytes);
    add_until_full();
    CHECK(id > n_before + 1);
    for (int one : held) CHECK(std::memcmp(store.map(key_of(one)).bytes, segment_of(one).image.data(), segment_of(one).image.size()) == 0);
  }
  CHECK(store.find(key_of(id - 1)));
  CHECK(!store.find(key_of(0)));
  // All of it in use: there is no room to be made.
  for (const SegmentKey& key : store.keys()) store.acquire(key);
  const size_t n_segments = store.keys().size();
  CHECK(!store.make_room(64 << 10));
  CHECK(store.keys().size() == n_segments);
  CHECK(contents_of(store, id).segments.size() == n_segments);
  CHECK(store.remove(store.keys()).n_segments == 0);
}

TEST_CASE("store: room is made in very small stores too, as long as what is in use leaves any") {
  const uint32_t seed = seed_of("store room");
  std::mt19937 random(seed);
  for (int round = 0; round < 6; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    FaultFileSystem files(random());
    StoreOptions options = small_options();
    options.segment_file_bytes = 1 << 20;
    options.max_bytes = (1 << 20) + random() % (1 << 20);
    // What a segment in use takes: its record and reading keys, its part of a file's header and border, of which together a twentieth may
    // be dead; its places in a MANIFEST and in the next. A sixteenth is for copying; the rest is what there is once: log, lock, files
    // that are not full, the segment that is to be added.
    const uint64_t file_bytes = options.max_bytes / 20;
    const auto taken_by = [&](int id) {
      const SegmentLayout& layout = segment_of(id).header.layout;
      const uint64_t bytes = segment_record_bytes(layout) + layout.v;
      return (bytes + bytes * 8192 / file_bytes) * 20 / 19 + 208;
    };
    const uint64_t most = options.max_bytes - options.max_bytes / 16 - (48 << 10);
    Store store(files, kFolder, kIdentity, options);
    std::vector<int> held;
    uint64_t taken = 0;
    for (int id = 0; id < 2500; ++id) {
      const SegmentKey key = segment_of(id).header.key;
      try {
        add_segment(store, id);
      } catch (const EngineError& error) {
        REQUIRE(error.code() == ErrorCode::store_full);
        CAPTURE(id);
        REQUIRE(store.make_room(store.needed_bytes(segment_of(id).header.layout)));
        add_segment(store, id);
      }
      REQUIRE(files.used_bytes() <= options.max_bytes);
      // As many are in use as there is room for; any of them, so that what is dead lies everywhere.
      while (!held.empty() && taken + taken_by(id) > most) {
        const size_t at = random() % held.size();
        taken -= taken_by(held[at]);
        store.release(key_of(held[at]));
        held.erase(held.begin() + int(at));
      }
      if (random() % 4 == 0) continue;
      REQUIRE(store.acquire(key));
      held.push_back(id);
      taken += taken_by(id);
    }
    for (int id : held) REQUIRE(store.find(key_of(id)));
    require_sound(store);
  }
}

TEST_CASE("store: a mapping outlives compaction and removal of its file; dead bytes are given back") {
  TemporaryFolder folder;
  StoreOptions options = small_options();
  options.segment_file_bytes = 64 << 10;  // or headers and borders count for more than segments
  Store store(system_files(), folder / "s", kIdentity, options);
  constexpr int kIds = 200;
  std::vector<SegmentImage> images;
  for (int id = 0; id < kIds; ++id) {
    add_segment(store, id);
    images.push_back(store.map(key_of(id)));
  }
  store.commit();
  const uint64_t full = store.statistics().bytes;
  std::vector<SegmentKey> removed;
  for (int id = 0; id < kIds; ++id) {
    if (id % 4 != 0) removed.push_back(key_of(id));
  }
  CHECK(store.remove(removed).n_segments == removed.size());
  store.commit();
  while (store.compact(10000)) {
  }
  CHECK(store.statistics().bytes < full / 2);
  for (int id = 0; id < kIds; ++id) {
    CHECK(std::memcmp(images[size_t(id)].bytes, segment_of(id).image.data(), segment_of(id).image.size()) == 0);
    CHECK(bool(store.find(key_of(id))) == (id % 4 == 0));
  }
  CHECK(contents_of(store, kIds).segments.size() == kIds / 4);
  // No file is left that is not one of it.
  size_t n_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "s")) n_files += entry.path().extension() == ".kv";
  CHECK(n_files == store.statistics().n_files);
}

TEST_CASE("store: after a purge no byte of what was removed is on the disk") {
  const uint32_t seed = seed_of("store purge");
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    FaultFileSystem files(random());
    Store store(files, kFolder, kIdentity, small_options());
    StoreModel model = fill(store);
    for (int id = 0; id < 24; ++id) {
      if (random() % 4 != 0) continue;
      store.remove({key_of(id)});
      model.segments.erase(id);
      store.erase(StoreTable::files, "file " + std::to_string(id));
      model.tables[0].erase("file " + std::to_string(id));
    }
    store.purge();
    REQUIRE(contents_of(store, 24) == model);
    std::string disk;
    for (const auto& [path, bytes] : files.contents()) disk += bytes;
    for (int id = 0; id < 24; ++id) {
      const auto& image = segment_of(id).image;
      const bool is_there = disk.find(std::string_view(reinterpret_cast<const char*>(image.data()), image.size())) != std::string::npos;
      REQUIRE(is_there == bool(model.segments.count(id)));
    }
    // Nothing is copied where nothing is dead.
    const int64_t n_operations = files.n_operations();
    store.purge();
    REQUIRE(files.n_operations() < n_operations + 16);
    require_sound(store);
  }
}

TEST_CASE("store: what was added until the disk was full can still be committed") {
  for (uint64_t capacity = 20 << 10; capacity < (200 << 10); capacity += 1777) {
    CAPTURE(capacity);
    FaultFileSystem files{uint32_t(capacity)};
    StoreModel model;
    {
      StoreOptions options = small_options();
      options.checkpoint_bytes = 1 << 20;  // a MANIFEST would need room of its own
      Store store(files, kFolder, kIdentity, options);
      store.commit();  // the log is there from now on
      files.set_capacity(capacity);
      for (int id = 0; id < 400; ++id) {
        try {
          add_segment(store, id);
          model.segments.insert(id);
        } catch (const EngineError& error) {
          REQUIRE(error.code() == ErrorCode::store_full);
          break;
        }
      }
      store.commit();
    }
    files.crash();
    Store store(files, kFolder, kIdentity, small_options());
    REQUIRE(contents_of(store, 400) == model);
  }
}

TEST_CASE("store: a process that is about to end is waited for") {
  FaultFileSystem files(5);
  StoreOptions options = small_options();
  auto held = files.lock("LOCK");
  CHECK(code_of([&] { Store(files, kFolder, kIdentity, options); }) == ErrorCode::store_unwritable);
  options.lock_wait_ms = 60'000;
  std::thread ends([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    held.reset();
  });
  CHECK_NOTHROW(Store(files, kFolder, kIdentity, options));
  ends.join();
}

TEST_CASE("store: threads that add, read, commit and compact at once") {
  TemporaryFolder folder;
  constexpr int kIds = 300;
  {
    Store store(system_files(), folder / "s", kIdentity, small_options());
    std::atomic<int> n_added{0};
    std::atomic<bool> done{false};
    std::thread adding([&] {
      for (int id = 0; id < kIds; ++id, ++n_added) {
        add_segment(store, id);
        if (id % 3 == 2) store.remove({key_of(id - 1)});
      }
      done = true;
    });
    std::thread flushing([&] {
      while (!done) {
        store.commit();
        store.compact(5000);
      }
    });
    std::thread recording([&] {
      for (int n = 0; !done; ++n) {
        store.put(StoreTable::files, std::to_string(n % 100), std::to_string(n));
        store.records(StoreTable::files, "1");
      }
    });
    std::mt19937 random(1);
    int n_wrong = 0;
    while (!done) {
      if (n_added == 0) continue;
      const int id = int(random() % uint32_t(n_added));
      try {
        n_wrong += std::memcmp(store.map(key_of(id)).bytes, segment_of(id).image.data(), segment_of(id).image.size()) != 0;
        n_wrong += std::memcmp(store.read_keys(key_of(id)).data(), segment_of(id).image.data() + segment_of(id).header.layout.run_bytes, 8) != 0;
      } catch (const EngineError&) {
        n_wrong += id % 3 != 1;  // those are removed
      }
    }
    for (std::thread* thread : {&adding, &flushing, &recording}) thread->join();
    CHECK(n_wrong == 0);
    CHECK(store.take_findings().empty());
    store.commit();
  }
  Store store(system_files(), folder / "s", kIdentity, small_options());
  CHECK(contents_of(store, kIds).segments.size() == kIds - kIds / 3);
  require_sound(store);
}
