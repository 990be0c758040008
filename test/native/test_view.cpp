// What a view prepares for selection, against the images of its segments.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/backend.h"
#include "native/context/view.h"

using namespace sala;

namespace {

ModelConfig two_sparse_layers() {
  ModelConfig config;
  config.mixer_types = {MixerType::sparse, MixerType::lightning, MixerType::sparse};
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 24;
  config.sparse_config.emplace();
  config.sparse_config->topk = 2;
  return config;
}

}  // namespace

TEST_CASE("view: compressed keys lie where selection looks for them") {
  const ModelConfig config = two_sparse_layers();
  std::mt19937 random(1);
  Stream stream(1);
  for (KvForm form : {KvForm::int8, KvForm::f32}) {
    std::vector<ViewSegment> segments;
    std::vector<std::shared_ptr<Aligned<uint8_t>>> images;
    for (int n_tokens : {495, 1, 65, 64, 300, 16, 130, 495}) {
      const SegmentLayout layout = segment_layout(config, form, n_tokens);
      auto image = std::make_shared<Aligned<uint8_t>>(layout.image_bytes());
      for (uint8_t& byte : *image) byte = uint8_t(random() & 0x3F);  // as floats, too, they are numbers
      segments.push_back({layout, 0});
      images.push_back(image);
    }
    View view(config, segments, 0, [&](size_t i) { return SegmentImage{images[i], images[i]->data()}; });
    while (!view.fetch_some()) {}
    REQUIRE(view.selects_blocks());
    for (int layer = 0; layer < 2; ++layer) {
      const View::Scoring& scoring = view.scoring(layer, *backends().back(), stream);
      CHECK(std::holds_alternative<View::Stored8>(scoring) == (form == KvForm::int8));
      int first_block = 0, first_window = 0, n_wrong = 0;
      for (size_t i = 0; i < segments.size(); ++i) {
        const SegmentLayout& layout = segments[i].layout;
        for (int g = 0; g < 2; ++g) {
          const uint8_t* run = images[i]->data() + layout.run_bytes * (size_t(layer) * 2 + g);
          for (int j = 0; j < layout.n_windows; ++j) {
            const int64_t block = first_block + j / 4;
            for (int c = 0; c < 24; ++c) {
              if (const auto* stored = std::get_if<View::Stored8>(&scoring)) {
                const BlockWindows& windows = stored->windows[size_t(g) * view.n_blocks() + block];
                n_wrong += j % 4 >= windows.n || windows.k[j % 4 * 24 + c] != int8_t(run[layout.k1 + j * 24 + c]);
                n_wrong += windows.scales[j % 4] != reinterpret_cast<const float*>(run + layout.k1_scales)[j];
              } else {
                const View::Floats& floats = std::get<View::Floats>(scoring);
                const float* keys = reinterpret_cast<const float*>(run + layout.k1);
                n_wrong += floats.k1.data()[g * floats.k1.head_stride() + turned_index(first_window + j, c, 24)] != keys[j * 24 + c];
              }
            }
          }
        }
        for (int b = 0; b < layout.n_blocks(); ++b) {
          if (const auto* stored = std::get_if<View::Stored8>(&scoring)) {
            for (int g = 0; g < 2; ++g) {
              const BlockWindows& windows = stored->windows[size_t(g) * view.n_blocks() + first_block + b];
              n_wrong += windows.continued != (b > 0);
              n_wrong += windows.n != std::clamp(layout.n_windows - 4 * b, 0, 4);
            }
          } else {
            const View::Floats& floats = std::get<View::Floats>(scoring);
            n_wrong += floats.block_begin[first_block + b] != first_window + (b > 0 ? 4 * b - 1 : 0);
            n_wrong += floats.block_end[first_block + b] != first_window + std::min(4 * b + 4, layout.n_windows);
          }
        }
        first_block += layout.n_blocks();
        first_window += layout.n_windows;
      }
      CHECK(first_block == view.n_blocks());
      CHECK(n_wrong == 0);
    }
  }
}
