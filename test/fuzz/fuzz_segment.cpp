// Any bytes as a segment file: an EngineError, or a segment whose every part can be read. Checksums stop most alterations at the
// first step, so where bit 0 of the first byte is set they are made right before; bit 1: the stored form is fp32.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "native/context/view.h"
#include "native/store/segment_file.h"

namespace {

using namespace sala;

// Offsets of test/fuzz/make_corpus.py, which writes such files too: native/store/segment_file.cpp says what they mean.
constexpr size_t kHeader = 128, kTokenCount = 16, kFileBytes = 40, kFrontChecksum = 112;

struct File {
  const std::string path = (std::filesystem::temp_directory_path() / ("sala-fuzz-" + std::to_string(getpid()) + ".seg")).string();
  ~File() { std::filesystem::remove(path); }
};

ModelConfig small_model() {
  ModelConfig config;
  config.mixer_types = {MixerType::sparse, MixerType::lightning, MixerType::sparse};
  config.num_hidden_layers = 3;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.sparse_config = SparseConfig{};
  return config;
}

template <class T>
void put(std::vector<uint8_t>& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

void mend_checksums(std::vector<uint8_t>& bytes, const ModelConfig& config, KvForm form) {
  if (bytes.size() < kHeader) return;
  uint32_t n_tokens;
  std::memcpy(&n_tokens, bytes.data() + kTokenCount, sizeof n_tokens);
  if (n_tokens > bytes.size()) return;
  const SegmentLayout layout = segment_layout(config, form, int(n_tokens));
  const size_t n_runs = size_t(layout.n_sparse_layers) * layout.n_kv_heads;
  const size_t image = (kHeader + 2 * sizeof(uint64_t) * n_runs + sizeof(int32_t) * n_tokens + 63) / 64 * 64;
  if (bytes.size() < image) return;
  if (bytes.size() == image + layout.image_bytes()) {
    for (size_t run = 0; run < n_runs; ++run) {
      const uint8_t* at = bytes.data() + image + layout.run_bytes * run;
      put(bytes, kHeader + 16 * run, XXH3_64bits(at, layout.v));
      put(bytes, kHeader + 16 * run + 8, XXH3_64bits(at + layout.v, layout.run_bytes - layout.v));
    }
  }
  put(bytes, kFileBytes, uint64_t(bytes.size()));
  put(bytes, kFrontChecksum, uint64_t(0));
  const uint64_t seed = XXH3_64bits(bytes.data(), kHeader);
  put(bytes, kFrontChecksum, XXH3_64bits_withSeed(bytes.data() + kHeader, image - kHeader, seed));
}

unsigned sum_bytes(const void* data, size_t n) {
  unsigned sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<const uint8_t*>(data)[i];
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const File file;
  static const ModelConfig config = small_model();
  static volatile unsigned sum;  // so that the reads are done
  if (size == 0) return 0;
  const KvForm form = data[0] & 2 ? KvForm::f32 : KvForm::int8;
  std::vector<uint8_t> bytes(data + 1, data + size);
  if (data[0] & 1) mend_checksums(bytes, config, form);
  std::ofstream(file.path, std::ios::binary | std::ios::trunc).write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  try {
    SegmentFile segment(file.path, SegmentKey{}, config, form);
    const SegmentLayout layout = segment.header().layout;
    const int n_header = segment.header().n_header_tokens;
    if (segment.header().tokens.size() != size_t(layout.n_tokens) || n_header < 0 || n_header > layout.n_tokens) std::abort();
    for (int layer = 0; layer < layout.n_sparse_layers; ++layer) {
      for (int head = 0; head < layout.n_kv_heads; ++head) {
        const SegmentFile::Keys keys = segment.keys(layer, head);
        sum = sum + sum_bytes(keys.rows.data(), keys.rows.size());
      }
    }
    const SegmentImage image = SegmentFile::map(std::move(segment));
    const SegmentKv kv(layout, image);
    View view(config, {{layout, n_header}}, 0, [&](size_t) { return image; });
    while (!view.fetch_some()) {
    }
    const size_t row_bytes = layout.element_bytes() * size_t(layout.head_dim);
    for (int layer = 0; layer < layout.n_sparse_layers; ++layer) {
      for (const KvTile& tile : view.tiles(layer)) {
        for (int head = 0; head < layout.n_kv_heads; ++head) {
          const size_t at = size_t(head) * tile.head_stride * layout.element_bytes(), n = row_bytes * tile.n_rows;
          sum = sum + sum_bytes(static_cast<const uint8_t*>(tile.k) + at, n) + sum_bytes(static_cast<const uint8_t*>(tile.v) + at, n);
          if (tile.k_scales) {
            sum = sum + sum_bytes(tile.k_scales + head * tile.scale_stride, sizeof(float) * tile.n_rows) +
                  sum_bytes(tile.v_scales + head * tile.scale_stride, sizeof(float) * tile.n_rows);
          }
        }
      }
      const ReadSpan span = kv.keys(layer, layout.n_kv_heads - 1, n_header);
      sum = sum + sum_bytes(span.k, row_bytes * span.n_rows) + (span.k_scales ? sum_bytes(span.k_scales, sizeof(float) * span.n_rows) : 0);
      const View::Scoring& scoring = view.scoring(layer);
      for (int b = 0; b < view.n_blocks(); ++b) {
        if (scoring.block_begin[b] < 0 || scoring.block_begin[b] >= scoring.block_end[b] || scoring.block_end[b] > scoring.n_windows) std::abort();
      }
    }
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::store_invalid && error.code() != ErrorCode::store_newer) throw;
  }
  return 0;
}
