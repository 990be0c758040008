// Any bytes as config.json, or after a zero byte as quantize_config.json: a configuration or an EngineError, nothing
// else.
#include <string_view>

#include "kernels/error.h"
#include "native/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t border = text.find('\0');
  try {
    const sala::ModelConfig config =
        border == std::string_view::npos
            ? sala::parse_model_config(text, "config.json")
            : sala::parse_model_config(text.substr(0, border), "config.json", text.substr(border + 1));
    sala::fixed_log_decay(config, config.num_hidden_layers - 1);
  } catch (const sala::EngineError& error) {
    if (error.code() == sala::ErrorCode::internal) throw;
  }
  return 0;
}
