// A store of a few small segments in memory, with a sealed file, one that grows, a MANIFEST and a log, and a pack of it: what
// fuzz_store.cpp and fuzz_pack.cpp alter, and what their seeds are made from (replay.cpp --make-store-seeds).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "native/store/pack.h"
#include "test/native/fault_file_system.h"

namespace sala {

inline const std::string kSmallStoreFolder = "store";
inline const std::string kSmallStoreIdentity = "a model";

// Little-endian, as all numbers of both: for checksums that are mended.
inline void put(std::string& bytes, size_t at, uint64_t value, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; ++i) bytes[at + i] = char(uint8_t(value >> 8 * i));
}

inline StoreOptions small_store_options() {
  StoreOptions options;
  options.reading = ReadingKeys{0, {0}};
  options.max_bytes = uint64_t(1) << 26;
  options.segment_file_bytes = 5 << 10;
  return options;
}

inline void fill_small_store(Store& store) {
  const auto add = [&](uint8_t id) {
    SegmentHeader header;
    header.key.fill(id);
    header.layout.n_tokens = 2;
    header.layout.n_windows = 1;
    header.layout.n_sparse_layers = 1;
    header.layout.n_kv_heads = 1;
    header.layout.head_dim = 8;
    place_parts(header.layout);
    header.n_header_tokens = 1;
    header.tokens = {1, 2};
    Aligned<uint8_t> image(header.layout.image_bytes());
    for (uint8_t& byte : image) byte = id;
    store.add(header, image.data());
    store.release(header.key);
  };
  add(1);
  add(2);
  store.put(StoreTable::files, "file", "known");
  store.checkpoint();
  add(3);
  SegmentKey removed;
  removed.fill(2);
  store.remove({removed});
  store.put(StoreTable::versions, "version", "segments");
  store.erase(StoreTable::files, "file");
  store.commit();
}

// Bytes by path.
inline std::map<std::string, std::string> small_store() {
  FaultFileSystem files(1);
  Store store(files, kSmallStoreFolder, kSmallStoreIdentity, small_store_options());
  fill_small_store(store);
  return files.contents();
}

inline const std::string kSmallPack = kSmallStoreFolder + "/pack";

inline std::string small_pack() {
  FaultFileSystem files(1);
  auto store = std::make_shared<Store>(files, kSmallStoreFolder, kSmallStoreIdentity, small_store_options());
  fill_small_store(*store);
  const std::vector<SegmentKey> keys = store->keys();
  std::vector<PackInput> inputs{{"a.ts", keys[0], keys}, {"b.ts", keys[1], {keys[1]}}};
  PackWriter writer(files, kSmallPack, kSmallPack + ".tmp", store, {kSmallStoreIdentity, "cpu.1.kv8", {1, 2}, 1}, std::move(inputs));
  while (writer.write(1)) {
  }
  writer.finish();
  return files.contents().at(kSmallPack);
}

}  // namespace sala
