// Any bytes as the tensors of one quantised layer, behind a byte of settings: an EngineError, or a matrix of the layer's size.
#include <cstdlib>

#include "native/gptq.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sala;
  if (size == 0) return 0;
  QuantizationConfig quantization;
  quantization.group_size = 32 << (data[0] % 3);
  quantization.checkpoint_format = data[0] & 4 ? CheckpointFormat::gptq_v2 : CheckpointFormat::gptq;
  try {
    const std::vector<TensorView> views = parse_safetensors(data + 1, size - 1, "model.safetensors");
    GptqTensors tensors{};
    for (const TensorView& view : views) {
      if (view.name == "qweight") tensors.qweight = &view;
      if (view.name == "qzeros") tensors.qzeros = &view;
      if (view.name == "scales") tensors.scales = &view;
      if (view.name == "g_idx") tensors.g_idx = &view;
    }
    if (!tensors.qweight || !tensors.qzeros || !tensors.scales || tensors.qweight->shape.size() != 2) return 0;
    // A configuration's sizes are positive and bounded (model_config.h).
    const int64_t n_words = tensors.qweight->shape[0], out_features = tensors.qweight->shape[1];
    if (n_words < 1 || n_words > 1 << 16 || out_features < 1 || out_features > 1 << 16) return 0;
    const int in_features = int(n_words) * 8;
    check_gptq(tensors, quantization, int(out_features), in_features, "layer");
    const Matrix matrix = pack_gptq(tensors, quantization, int(out_features), in_features);
    if (matrix.out_features != out_features || matrix.in_features != in_features) std::abort();
  } catch (const EngineError& error) {
    if (error.code() == ErrorCode::internal) throw;
  }
  return 0;
}
