// Any bytes as one file of a store whose other files are sound: it opens, whatever is served is read to the end, it verifies, and goes
// on. The first byte chooses the file: CURRENT, MANIFEST, log, a sealed segment file, one that grows. Checksums stop most alterations
// at the first step, so where bit 7 of it is set those of MANIFEST and log are made right before.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdlib>
#include <cstring>

#include "native/store/crc32c.h"
#include "native/store/store.h"
#include "test/fuzz/small_store.h"

namespace {

using namespace sala;

void mend_manifest(std::string& bytes) {
  constexpr size_t kBody = 32;
  if (bytes.size() < kBody) return;
  put(bytes, 12, crc32c(bytes.data(), 12), 4);
  put(bytes, 16, bytes.size() - kBody, 8);
  put(bytes, 24, XXH3_64bits(bytes.data() + kBody, bytes.size() - kBody), 8);
}

// All behind the header as one commit.
void mend_wal(std::string& bytes, const std::string& sound) {
  constexpr size_t kHeader = kWalHeaderBytes, kBody = kHeader + 16;
  if (bytes.size() < kBody) return;
  bytes.replace(0, kHeader, sound, 0, kHeader);
  put(bytes, kHeader, bytes.size() - kBody, 4);
  bytes.replace(kHeader + 8, 8, sound, kHeader + 8, 8);
  put(bytes, kHeader + 4, crc32c(bytes.data() + kHeader + 8, bytes.size() - kHeader - 8, crc32c(bytes.data() + kHeader, 4)), 4);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::map<std::string, std::string> sound = small_store();
  static volatile unsigned sum;  // so that the reads are done
  if (size == 0) return 0;
  auto contents = sound;
  auto chosen = contents.begin();
  std::advance(chosen, (data[0] & 0x7f) % contents.size());
  chosen->second.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] & 0x80) {
    if (chosen->first.find("MANIFEST") != std::string::npos) mend_manifest(chosen->second);
    if (chosen->first.find("wal") != std::string::npos) mend_wal(chosen->second, sound.at(chosen->first));
  }
  FaultFileSystem files(1);
  for (const auto& [path, bytes] : contents) files.replace(path, bytes);
  try {
    Store store(files, kSmallStoreFolder, kSmallStoreIdentity, small_store_options());
    for (const SegmentKey& key : store.keys()) {
      try {
        const SegmentInfo info = *store.find(key);
        const SegmentImage image = store.map(key);
        for (size_t i = 0; i < info.layout.image_bytes(); ++i) sum = sum + image.bytes[i];
        for (uint8_t byte : store.read_keys(key)) sum = sum + byte;
        if (store.tokens(key).size() != size_t(info.layout.n_tokens)) std::abort();
      } catch (const EngineError& error) {
        if (error.code() != ErrorCode::store_invalid && error.code() != ErrorCode::out_of_memory) throw;
      }
    }
    store.verify();
    store.put(StoreTable::roots, "a", "b");
    while (store.compact(1 << 20)) {
    }
    store.checkpoint();
    if (store.get(StoreTable::roots, "a") != "b" || !store.verify().findings.empty()) std::abort();
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::store_newer && error.code() != ErrorCode::store_full) throw;
  }
  return 0;
}
