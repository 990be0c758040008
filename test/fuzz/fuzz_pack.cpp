// Packs: any bytes as one. Whatever they are, the pack is refused or read to its end, every segment that counts as sound goes into a
// store, and a head that is accepted is written the same way again.
// The first byte of an input: whether the checksums of the prefix and the head are mended first (bit 7), so that what they guard is reached.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdlib>
#include <cstring>

#include "native/store/crc32c.h"
#include "native/store/pack.h"
#include "test/fuzz/small_store.h"

namespace {

using namespace sala;

void mend(std::string& bytes) {
  if (bytes.size() < kPackFrontBytes) return;
  put(bytes, 12, crc32c(bytes.data(), 12), 4);
  uint64_t head_bytes = 0;
  for (size_t i = 0; i < 8; ++i) head_bytes |= uint64_t(uint8_t(bytes[16 + i])) << 8 * i;
  const size_t there = bytes.size() - kPackFrontBytes;
  put(bytes, 24, XXH3_64bits(bytes.data() + kPackFrontBytes, size_t(std::min<uint64_t>(head_bytes, there))), 8);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] & 0x80) mend(bytes);
  FaultFileSystem files(1);
  files.replace(kSmallPack, bytes);
  try {
    PackReader pack(files, kSmallPack);
    const std::string front = encode_pack_front(pack.head());
    if (bytes.compare(0, front.size(), front) != 0) std::abort();
    Store store(files, kSmallStoreFolder, kSmallStoreIdentity, small_store_options());
    size_t n_read = 0;
    for (auto segments = pack.read(4096); !segments.empty(); segments = pack.read(4096)) {
      for (const PackReader::Segment& segment : segments) {
        if (segment.index != n_read++) std::abort();
        if (!segment.damage.empty()) continue;
        const PackedSegment& packed = pack.head().segments[segment.index];
        try {
          pack.add_to(store, segment.index);
        } catch (const EngineError& error) {
          if (error.code() != ErrorCode::invalid_argument) throw;  // without the heads that are read
          continue;
        }
        store.release(packed.key);
        if (store.tokens(packed.key) != segment.tokens) std::abort();
        store.read_keys(packed.key);
      }
    }
    if (n_read != pack.head().segments.size()) std::abort();
    pack.damage_of_the_rest();
  } catch (const EngineError& error) {
    const ErrorCode code = error.code();
    if (code != ErrorCode::store_invalid && code != ErrorCode::store_newer && code != ErrorCode::store_full && code != ErrorCode::out_of_memory) throw;
  }
  return 0;
}
