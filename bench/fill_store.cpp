// Fills a store with segments that no model has run, for bench/reopen: each address gets the rows of a segment that the store has
// already, again and again. What comes of it is as large, and is read and checked, as if it were real; its answers are of no worth.
//
//   bench_fill_store STORE IDENTITY MODEL READ_LAYER READ_HEADS < list
//
// List: for each segment its address (32 bytes), then as int32 tokens of the header, tokens, and these. Prints one JSON document.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>

#include "native/model_config.h"
#include "native/store/store.h"

using namespace sala;

namespace {

// As often as some hundred segments, so that files are sealed as they are while an engine reads.
constexpr uint64_t kCommitBytes = uint64_t(64) << 20;

bool read_all(void* to, size_t n_bytes) { return std::fread(to, 1, n_bytes, stdin) == n_bytes; }

ReadingKeys reading_keys(const ModelConfig& config, int layer, const std::string& heads) {
  ReadingKeys reading;
  for (int i = 0; i < layer; ++i) reading.sparse_layer += config.mixer_types[i] == MixerType::sparse;
  std::istringstream list(heads);
  for (std::string head; std::getline(list, head, ',');) {
    const int kv_head = std::stoi(head) / (config.num_attention_heads / config.num_key_value_heads);
    if (std::find(reading.kv_heads.begin(), reading.kv_heads.end(), kv_head) == reading.kv_heads.end()) reading.kv_heads.push_back(kv_head);
  }
  return reading;
}

// Rows of one part of a run, taken from those of another segment as often as it takes.
void repeat_rows(uint8_t* to, size_t n_to, const uint8_t* from, size_t n_from, size_t row_bytes) {
  for (size_t row = 0; row < n_to; ++row) std::memcpy(to + row * row_bytes, from + row % n_from * row_bytes, row_bytes);
}

void fill_image(const SegmentLayout& layout, uint8_t* image, const SegmentLayout& model, const uint8_t* model_image) {
  const size_t row = layout.element_bytes() * size_t(layout.head_dim);
  for (size_t run = 0; run < size_t(layout.n_sparse_layers) * layout.n_kv_heads; ++run) {
    uint8_t* to = image + run * layout.run_bytes;
    const uint8_t* from = model_image + run * model.run_bytes;
    repeat_rows(to, layout.n_tokens, from, model.n_tokens, row);
    repeat_rows(to + layout.k_scales, layout.n_tokens, from + model.k_scales, model.n_tokens, sizeof(float));
    repeat_rows(to + layout.v, layout.n_tokens, from + model.v, model.n_tokens, row);
    repeat_rows(to + layout.v_scales, layout.n_tokens, from + model.v_scales, model.n_tokens, sizeof(float));
    repeat_rows(to + layout.k1, layout.n_windows, from + model.k1, model.n_windows, row);
    repeat_rows(to + layout.k1_scales, layout.n_windows, from + model.k1_scales, model.n_windows, sizeof(float));
  }
}

int run(char** argv) {
  const ModelConfig config = load_model_config(argv[3]);
  StoreOptions options;
  options.reading = reading_keys(config, std::atoi(argv[4]), argv[5]);
  options.max_bytes = uint64_t(1) << 40;
  Store store(system_files(), argv[1], argv[2], options);
  struct Model {
    SegmentLayout layout;
    SegmentImage image;
  };
  std::vector<Model> models;
  for (const SegmentKey& key : store.keys()) models.push_back({store.find(key)->layout, store.map(key)});
  if (models.empty()) fail(ErrorCode::invalid_argument, "expected a store with a segment to repeat, found none");

  uint64_t n_segments = 0, n_tokens = 0, image_bytes = 0, uncommitted = 0;
  SegmentHeader header;
  while (read_all(header.key.data(), header.key.size())) {
    int32_t counts[2];
    if (!read_all(counts, sizeof counts) || counts[1] < 1 || counts[1] > 1 << 20) fail(ErrorCode::invalid_argument, "expected counts of tokens, found something else");
    header.n_header_tokens = counts[0];
    header.tokens.resize(size_t(counts[1]));
    if (!read_all(header.tokens.data(), sizeof(int32_t) * header.tokens.size())) fail(ErrorCode::invalid_argument, "expected ", counts[1], " tokens, found fewer");
    header.layout = segment_layout(config, KvForm::int8, counts[1]);
    n_segments += 1;
    n_tokens += header.tokens.size();
    image_bytes += header.layout.image_bytes();
    const Model& model = models[n_segments % models.size()];
    Aligned<uint8_t> image(header.layout.image_bytes());
    fill_image(header.layout, image.data(), model.layout, model.image.bytes);
    store.add(header, image.data());
    uncommitted += image.size();
    if (uncommitted < kCommitBytes) continue;
    store.commit();
    uncommitted = 0;
  }
  store.commit();
  std::printf("{\"segments\": %llu, \"tokens\": %llu, \"image_bytes\": %llu}\n", static_cast<unsigned long long>(n_segments),
              static_cast<unsigned long long>(n_tokens), static_cast<unsigned long long>(image_bytes));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "bench_fill_store STORE IDENTITY MODEL READ_LAYER READ_HEADS < list\n");
    return 2;
  }
  try {
    return run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
