// native/store/pack.h: what is written is what is read, equal memories are equal bytes, a pack that is damaged anywhere is refused or
// names what is damaged, and a pack that cannot be written leaves nothing behind.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <functional>

#include "native/store/crc32c.h"
#include "native/store/pack.h"
#include "test/native/code_of.h"
#include "test/native/model_files.h"
#include "test/native/store_cases.h"

using namespace sala;

namespace {

constexpr int kSegments = 10;
const std::string kPack = kFolder + "/w.pack", kTemporary = kPack + ".tmp";

PackAbout about() { return {"a model", "cpu.1.kv8", {1, 2, 3}, 1}; }

std::vector<PackInput> inputs() {
  return {{"src/b.ts", key_of(101), {key_of(0), key_of(1), key_of(2)}},
          {"src/a.ts", key_of(100), {key_of(3), key_of(3), key_of(4), key_of(5)}},
          {"empty", key_of(102), {}},
          {"src/\xc3\xbc.ts", key_of(103), {key_of(6), key_of(1)}},
          {"src/b.ts", key_of(99), {key_of(7), key_of(8), key_of(9)}}};
}

std::shared_ptr<Store> filled_store(FileSystem& files, const std::vector<int>& order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, const std::string& folder = kFolder) {
  auto store = std::make_shared<Store>(files, folder, kIdentity, small_options());
  for (int id : order) add_segment(*store, id);
  store->commit();
  return store;
}

std::string write_pack(FaultFileSystem& files, const std::shared_ptr<Store>& store, std::vector<PackInput> files_of_it = inputs(), uint64_t at_once = 1) {
  PackWriter writer(files, kPack, kTemporary, store, about(), std::move(files_of_it));
  while (writer.write(at_once)) {
  }
  writer.finish();
  const std::string bytes = files.contents().at(kPack);
  CHECK(writer.bytes() == bytes.size());
  CHECK(writer.written() == bytes.size());
  CHECK(!files.contents().count(kTemporary));
  return bytes;
}

const std::string& small_pack() {
  static const std::string bytes = [] {
    FaultFileSystem files(1);
    return write_pack(files, filled_store(files));
  }();
  return bytes;
}

struct Read {
  std::optional<ErrorCode> refused;
  std::set<SegmentKey> sound, damaged;
  std::string rest;
};

// Reads a pack into an empty store. What is sound must be what was written, whatever else the bytes say.
Read read_pack(const std::string& bytes) {
  Read read;
  FaultFileSystem files(1);
  files.replace(kPack, bytes);
  Store store(files, kFolder, kIdentity, small_options());
  try {
    PackReader reader(files, kPack);
    for (auto segments = reader.read(2000); !segments.empty(); segments = reader.read(2000)) {
      for (const PackReader::Segment& segment : segments) {
        const PackedSegment& packed = reader.head().segments[segment.index];
        if (segment.damage.empty()) {
          reader.add_to(store, segment.index);
          store.release(packed.key);
          read.sound.insert(packed.key);
        } else {
          read.damaged.insert(packed.key);
          REQUIRE(code_of([&] { reader.add_to(store, segment.index); }) == ErrorCode::invalid_argument);
        }
      }
    }
    read.rest = reader.damage_of_the_rest();
  } catch (const EngineError& error) {
    read.refused = error.code();
  }
  const StoreModel found = contents_of(store, kSegments);
  REQUIRE(found.segments.size() == read.sound.size());
  return read;
}

void mend_head(std::string& bytes) {
  uint64_t head_bytes = 0;
  std::memcpy(&head_bytes, bytes.data() + 16, sizeof head_bytes);
  const uint64_t sum = XXH3_64bits(bytes.data() + kPackFrontBytes, std::min<size_t>(head_bytes, bytes.size() - kPackFrontBytes));
  std::memcpy(bytes.data() + 24, &sum, sizeof sum);
}

PackHead head_of(const std::string& bytes) {
  const PackFront front = decode_pack_front(bytes, "pack");
  return decode_pack_head(std::string_view(bytes).substr(kPackFrontBytes, front.end() - kPackFrontBytes), front, "pack");
}

}  // namespace

TEST_CASE("pack: what is written is what is read") {
  const Read read = read_pack(small_pack());
  CHECK(!read.refused);
  CHECK(read.sound.size() == kSegments);
  CHECK(read.damaged.empty());
  CHECK(read.rest == "");
  const PackHead head = head_of(small_pack());
  CHECK(head.about == about());
  CHECK(std::is_sorted(head.segments.begin(), head.segments.end(), [](const auto& a, const auto& b) { return a.key < b.key; }));
  // By path, bytewise; the same path of two roots by address.
  std::vector<std::string> paths;
  for (const PackedFile& file : head.files) paths.push_back(file.path);
  CHECK(paths == std::vector<std::string>{"empty", "src/a.ts", "src/b.ts", "src/b.ts", "src/\xc3\xbc.ts"});
  for (const PackInput& input : inputs()) {
    const auto file = std::find_if(head.files.begin(), head.files.end(), [&](const PackedFile& file) { return file.path == input.path && file.key == input.key; });
    REQUIRE(file != head.files.end());
    std::vector<SegmentKey> keys;
    for (uint32_t index : file->segments) keys.push_back(head.segments[index].key);
    CHECK(keys == input.segments);
  }
  FaultFileSystem files(1);
  files.replace(kPack, small_pack());
  PackReader reader(files, kPack);
  CHECK(reader.bytes() == small_pack().size());
  CHECK(reader.expected_bytes() == small_pack().size());
  for (const PackReader::Segment& segment : reader.read(UINT64_MAX)) {
    const SegmentKey& key = head.segments[segment.index].key;
    for (int id = 0; id < kSegments; ++id) {
      if (key == key_of(id)) CHECK(segment.tokens == segment_of(id).header.tokens);
    }
  }
}

TEST_CASE("pack: an empty memory is a pack too") {
  FaultFileSystem files(1);
  const std::string bytes = write_pack(files, filled_store(files), {});
  CHECK(bytes.size() < 200);
  const Read read = read_pack(bytes);
  CHECK(!read.refused);
  CHECK(read.sound.empty());
  CHECK(read.rest == "");
}

TEST_CASE("pack: its bytes depend on the memory alone, not on how it came about") {
  const uint32_t seed = seed_of("pack history");
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    CAPTURE(seed);
    FaultFileSystem files(random());
    std::vector<int> order{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 23, 24, 25, 26};
    std::shuffle(order.begin(), order.end(), random);
    auto store = filled_store(files, order);
    std::vector<SegmentKey> others;
    for (int id = 20; id <= 26; ++id) others.push_back(key_of(id));
    if (random() % 2) store->remove(others);
    if (random() % 2) store->purge();
    if (random() % 2) {
      store.reset();
      store = std::make_shared<Store>(files, kFolder, kIdentity, small_options());
      if (random() % 2) {
        store->remove({key_of(4)});
        add_segment(*store, 4);
      }
    }
    std::vector<PackInput> shuffled = inputs();
    shuffled.push_back(shuffled[random() % shuffled.size()]);  // of two roots that are equal
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    CHECK(write_pack(files, store, shuffled, 1 + random() % 5000) == small_pack());
  }
}

TEST_CASE("pack: every byte that is flipped is refused, or named with the segment that has it") {
  const std::string& sound = small_pack();
  const uint64_t first_record = decode_pack_front(sound, "pack").end();
  const uint32_t seed = seed_of("pack flip");
  std::mt19937 random(seed);
  size_t n_refused = 0, n_segments = 0, n_rest = 0;
  for (size_t at = 0; at < sound.size(); ++at) {
    CAPTURE(seed);
    CAPTURE(at);
    std::string bytes = sound;
    bytes[at] = char(uint8_t(bytes[at]) ^ (1 + random() % 255));
    const Read read = read_pack(bytes);
    if (read.refused) {
      REQUIRE(at < first_record);
      REQUIRE(read.refused == ErrorCode::store_invalid);
      ++n_refused;
      continue;
    }
    REQUIRE(at >= first_record);
    if (read.damaged.empty()) {
      REQUIRE(at >= sound.size() - kPackEndBytes);
      REQUIRE(read.rest != "");
      REQUIRE(read.sound.size() == kSegments);
      ++n_rest;
      continue;
    }
    REQUIRE(read.damaged.size() == 1);
    REQUIRE(read.sound.size() == kSegments - 1);
    ++n_segments;
  }
  CHECK(n_refused == first_record);
  CHECK(n_rest == kPackEndBytes);
  CHECK(n_segments == sound.size() - first_record - kPackEndBytes);
}

TEST_CASE("pack: one that is cut, or has more behind it, says so; what is whole in it is used") {
  const std::string& sound = small_pack();
  const uint64_t first_record = decode_pack_front(sound, "pack").end();
  size_t most = 0;
  for (size_t size = 0; size < sound.size(); ++size) {
    CAPTURE(size);
    const Read read = read_pack(sound.substr(0, size));
    if (size < first_record) {
      REQUIRE(read.refused == ErrorCode::store_invalid);
      continue;
    }
    REQUIRE(!read.refused);
    REQUIRE(read.rest != "");
    REQUIRE(read.sound.size() + read.damaged.size() == kSegments);
    REQUIRE(read.sound.size() >= most);
    most = read.sound.size();
  }
  CHECK(most == kSegments);
  for (const size_t n : {1, 16, 5000}) {
    const Read read = read_pack(sound + std::string(n, '\0'));
    CHECK(read.sound.size() == kSegments);
    CHECK(read.rest != "");
  }
}

TEST_CASE("pack: a head that says what cannot be is refused, checksum or not") {
  const PackHead head = head_of(small_pack());
  // Right to the last byte, but for what `change` makes of the body.
  const auto refused = [&](const std::function<void(std::string&)>& change) {
    std::string bytes = small_pack();
    change(bytes);
    mend_head(bytes);
    return read_pack(bytes).refused;
  };
  const auto number = [](size_t at, uint64_t value, size_t n_bytes) {
    return [=](std::string& bytes) { std::memcpy(bytes.data() + at, &value, n_bytes); };
  };
  const size_t body = kPackFrontBytes;
  const size_t segments = body + 4 + 7 + 4 + 9 + 4 + 3 * 4 + 4, files = segments + 8 + kSegments * (32 + 28);
  CHECK(!refused([](std::string&) {}));
  CHECK(refused(number(16, UINT64_MAX, 8)) == ErrorCode::store_invalid);                      // length of the head
  CHECK(refused(number(16, kMostPackHeadBytes, 8)) == ErrorCode::store_invalid);
  CHECK(refused(number(16, 64, 8)) == ErrorCode::store_invalid);
  CHECK(refused(number(body, UINT32_MAX, 4)) == ErrorCode::store_invalid);                    // of the identity
  CHECK(refused(number(segments, UINT64_MAX, 8)) == ErrorCode::store_invalid);                // how many segments
  CHECK(refused(number(segments, kSegments + 1, 8)) == ErrorCode::store_invalid);
  CHECK(refused(number(segments + 8 + 32, 7, 4)) == ErrorCode::store_invalid);                // a form that is none
  CHECK(refused(number(segments + 8 + 32 + 4, UINT32_MAX, 4)) == ErrorCode::store_invalid);   // tokens
  CHECK(refused(number(segments + 8 + 32 + 8, 1000, 4)) == ErrorCode::store_invalid);         // a header longer than the segment
  CHECK(refused(number(segments + 8, UINT64_MAX, 8)) == ErrorCode::store_invalid);            // the first key above the second
  CHECK(refused(number(files, UINT64_MAX, 8)) == ErrorCode::store_invalid);                   // how many files
  CHECK(refused(number(files, head.files.size() - 1, 8)) == ErrorCode::store_invalid);
  CHECK(refused(number(files + 8 + 4, 'z', 1)) == ErrorCode::store_invalid);                  // paths out of order
  CHECK(refused(number(files + 8 + 4 + 2, 0, 1)) == ErrorCode::store_invalid);                // a path with a zero in it
  CHECK(refused(number(files + 8 + 4 + 5 + 32, UINT32_MAX, 4)) == ErrorCode::store_invalid);  // segments of a file
  // A count that would pass a file's end is not believed: the segment is damaged, and no room is taken for it.
  std::string large = small_pack();
  number(segments + 8 + 32 + 4, (1 << 20) - 1, 4)(large);
  number(segments + 8 + 32 + 16, 1000, 4)(large);
  number(segments + 8 + 32 + 24, 4000, 4)(large);
  mend_head(large);
  const Read read = read_pack(large);
  CHECK(!read.refused);
  CHECK(read.damaged.size() == kSegments);  // all others are somewhere else then
  // A version that its own checksum knows is newer; one that it does not is damage.
  std::string newer = small_pack();
  newer[8] = 2;
  CHECK(read_pack(newer).refused == ErrorCode::store_invalid);
  const uint32_t sum = crc32c(newer.data(), 12);
  std::memcpy(newer.data() + 12, &sum, sizeof sum);
  CHECK(read_pack(newer).refused == ErrorCode::store_newer);
  // There is one way to write a head.
  CHECK(encode_pack_front(head) == small_pack().substr(0, decode_pack_front(small_pack(), "pack").end()));
}

TEST_CASE("pack: whatever fails while it is written, nothing of it stays and the one before does") {
  for (const ErrorCode code : {ErrorCode::store_full, ErrorCode::store_unwritable}) {
    for (int64_t n = 0;; ++n) {
      CAPTURE(n);
      FaultFileSystem files(1);
      const auto store = filled_store(files);
      files.replace(kPack, "the one before");
      files.fail_at(n, 1, code);
      bool failed = false;
      try {
        write_pack(files, store);
      } catch (const EngineError& error) {
        failed = true;
        REQUIRE(error.code() == code);
      }
      const auto contents = files.contents();
      REQUIRE(!contents.count(kTemporary));
      REQUIRE((contents.at(kPack) == "the one before" || contents.at(kPack) == small_pack()));
      if (!failed) break;
      REQUIRE(n < 100);
    }
  }
}

TEST_CASE("pack: after a crash at any moment there is the one before, or the new one whole") {
  const uint32_t seed = seed_of("pack crash");
  for (int64_t n = 0; n < 20; ++n) {
    for (uint32_t i = 0; i < 8; ++i) {
      CAPTURE(seed);
      CAPTURE(n);
      FaultFileSystem files(seed + i);
      {
        const auto store = filled_store(files);
        files.replace(kPack, "the one before");
        files.kill_at(n);
        try {
          write_pack(files, store);
        } catch (const Killed&) {
        }
      }
      files.crash();
      const auto contents = files.contents();
      REQUIRE((contents.at(kPack) == "the one before" || contents.at(kPack) == small_pack()));
    }
  }
}

TEST_CASE("pack: what the store lacks or has damaged ends it") {
  FaultFileSystem files(1);
  auto store = filled_store(files);
  CHECK(code_of([&] { write_pack(files, store, {{"a", key_of(100), {key_of(77)}}}); }) == ErrorCode::store_invalid);
  store->checkpoint();
  store.reset();
  for (const auto& [path, bytes] : files.contents()) {
    if (path.find("seg-") == std::string::npos) continue;
    std::string damaged = bytes;
    damaged[damaged.size() / 2] = char(damaged[damaged.size() / 2] ^ 1);
    files.replace(path, damaged);
  }
  store = std::make_shared<Store>(files, kFolder, kIdentity, small_options());
  CHECK(code_of([&] { write_pack(files, store); }) == ErrorCode::store_invalid);
  CHECK(store->keys().size() == kSegments - 1);  // named by the store, and gone
  CHECK(!files.contents().count(kPack));
  CHECK(!files.contents().count(kTemporary));
  files.replace(kTemporary, "somebody else's");
  store.reset();
  const auto sound = filled_store(files);
  CHECK(code_of([&] { write_pack(files, sound); }) == ErrorCode::store_unwritable);
  CHECK(files.contents().at(kTemporary) == "somebody else's");
}

TEST_CASE("pack: on the file system of this machine") {
  TemporaryFolder folder;
  const auto store = filled_store(system_files(), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, folder / "s");
  const std::string pack = folder / "w.pack";
  {
    PackWriter writer(system_files(), pack, pack + ".tmp", store, about(), inputs());
    writer.write(1);
  }  // given up
  CHECK(list_folder(folder.path, ErrorCode::internal) == std::vector<std::string>{"s"});
  PackWriter writer(system_files(), pack, pack + ".tmp", store, about(), inputs());
  while (writer.write(1)) {
  }
  writer.finish();
  CHECK(list_folder(folder.path, ErrorCode::internal) == std::vector<std::string>{"s", "w.pack"});
  CHECK(read_file(pack, 1 << 20, ErrorCode::internal) == small_pack());
  CHECK(code_of([&] { PackWriter(system_files(), folder / "none/w.pack", folder / "none/w.pack.tmp", store, about(), inputs()); }) == ErrorCode::store_unwritable);
  CHECK(code_of([&] { PackReader(system_files(), folder / "none"); }) == ErrorCode::store_invalid);
}
