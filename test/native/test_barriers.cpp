// How often the threads of the pool wait for each other in a layer: the design allows eight.
#include <doctest/doctest.h>

#include "kernels/backend.h"
#include "native/model.h"
#include "test/native/model_files.h"

using namespace sala;

TEST_CASE("a layer has at most eight barriers") {
  const std::string folder = kTestDir + "/golden/k-embedded/model";
  ModelConfig config = load_model_config(folder);
  Stream stream(2);
  Workspace workspace;
  Weights weights = load_weights(config, Checkpoint(folder), MemoryLimit(0), stream);
  const Model model{std::move(config), std::move(weights), best_backend(), stream, workspace, Activations::int8};
  for (int n_sequences : {1, 3}) {
    std::vector<Sequence> sequences;
    for (int i = 0; i < n_sequences; ++i) sequences.emplace_back(model.config, 64, false);
    std::vector<SequencePart> parts;
    for (Sequence& sequence : sequences) parts.push_back({&sequence, nullptr, std::vector<int32_t>(40, 1)});
    Forward forward(model, std::move(parts));
    while (!forward.done()) {
      const int layer = forward.n_layers_done();
      CAPTURE(layer);
      CAPTURE(n_sequences);
      const int64_t before = stream.n_barriers();
      forward.step();
      // Sparse attention is called for each sequence.
      const bool lightning = model.config.mixer_types[layer] == MixerType::lightning;
      CHECK(stream.n_barriers() - before <= 8 + (lightning ? 0 : n_sequences - 1));
    }
  }
}
