// Any bytes as a .safetensors file: an EngineError, or views whose every byte can be read.
#include <cstdlib>

#include "native/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    static volatile unsigned sum;  // so that the reads are done
    for (const sala::TensorView& view : sala::parse_safetensors(data, size, "model.safetensors")) {
      uint64_t n_bytes = sala::dtype_size(view.dtype);
      for (const int64_t n : view.shape) n_bytes *= static_cast<uint64_t>(n);
      if (n_bytes != view.nbytes) std::abort();
      for (size_t i = 0; i < view.nbytes; ++i) sum = sum + view.data[i];
    }
  } catch (const sala::EngineError& error) {
    if (error.code() == sala::ErrorCode::internal) throw;
  }
  return 0;
}
