// For the loader's tests: temporary folders, model files made or altered in memory, packed matrices as plain numbers,
// and the check that an error names what it should. Independent of the code under test: the safetensors writer and
// unpack() follow the formats' descriptions.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "kernels/matrix.h"

namespace sala {

inline const std::string kTestDir = SALA_TEST_DIR;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::random_device random;
    path =
        (std::filesystem::temp_directory_path() / ("sala-test-" + std::to_string(random()) + std::to_string(random())))
            .string();
    std::filesystem::create_directory(path);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path + "/" + name; }

  std::string path;
};

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  REQUIRE_MESSAGE(file.good(), path);
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// body() must throw EngineError(code) whose text has every part.
template <class Body>
void check_error(ErrorCode code, const std::vector<std::string>& parts, Body&& body) {
  std::string text;
  try {
    body();
  } catch (const EngineError& error) {
    text = error.what();
    CHECK_MESSAGE(error.code() == code, error_code_name(error.code()), ": ", text);
  }
  CHECK_MESSAGE(!text.empty(), "expected an error with \"", parts.empty() ? "" : parts.front(), "\", found none");
  for (const std::string& part : parts)
    CHECK_MESSAGE(text.find(part) != std::string::npos, "\"", part, "\" in: ", text);
}

// ---- model files ----------------------------------------------------------------------------------------------------

struct FileTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using FileTensors = std::map<std::string, FileTensor>;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

inline std::string safetensors_image(const std::string& header, const std::string& data) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), sizeof n) + header + data;
}

// shift: spaces in front of the data, to move it off its alignment.
inline std::string safetensors_image(const FileTensors& tensors, size_t shift = 0) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8 + shift, ' ');
  return safetensors_image(text, data);
}

inline FileTensors read_safetensors(const std::string& path) {
  const std::string image = read_text(path);
  uint64_t n = 0;
  std::memcpy(&n, image.data(), sizeof n);
  const nlohmann::json header = nlohmann::json::parse(image.substr(8, n));
  FileTensors tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    tensors[name] = {entry["dtype"], entry["shape"], image.substr(8 + n + begin, end - begin)};
  }
  return tensors;
}

// A model folder in memory, to be altered and written somewhere.
struct ModelFiles {
  nlohmann::json config;
  FileTensors tensors;

  explicit ModelFiles(const std::string& folder) : config(nlohmann::json::parse(read_text(folder + "/config.json"))) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".safetensors") continue;
      for (auto& [name, tensor] : read_safetensors(entry.path().string())) tensors[name] = tensor;
    }
  }
  void write(const std::string& folder, size_t shift = 0) const {
    write_text(folder + "/config.json", config.dump());
    write_text(folder + "/model.safetensors", safetensors_image(tensors, shift));
  }
};

// ---- packed matrices ------------------------------------------------------------------------------------------------

// Row-major values [out_features, in_features] of a packed matrix, columns in the checkpoint's order
// (kernels/matrix.h).
inline std::vector<float> unpack(const Matrix& m) {
  std::vector<float> values(static_cast<size_t>(m.out_features) * m.in_features);
  const size_t padded = (static_cast<size_t>(m.in_features) + 7) / 8 * 8;
  for (int n = 0; n < m.out_features; ++n) {
    for (int k = 0; k < m.in_features; ++k) {
      const size_t panel = n / 16, r = n % 16;
      float value = 0;
      if (m.form == MatrixForm::int4) {
        const size_t i = k / 8, b = k % 4;
        const uint8_t byte = m.values[panel * padded * 8 + i * 64 + r / 8 * 32 + 4 * (r % 8) + b];
        const int code = k % 8 < 4 ? byte & 15 : byte >> 4;
        const size_t at = (panel * m.n_groups() + k / m.group_size) * 16 + r;
        value = m.scales[at] * static_cast<float>(code - (m.zeros.empty() ? 8 : m.zeros[at]));
      } else if (m.form == MatrixForm::int8) {
        const auto code = static_cast<int8_t>(m.values[panel * padded * 16 + k / 4 * 64 + 4 * r + k % 4]);
        value = m.scales[panel * 16 + r] * code;
      } else if (m.form == MatrixForm::f32) {
        std::memcpy(&value, m.values.data() + ((panel * padded + k) * 16 + r) * 4, 4);
      } else {
        uint16_t bits;
        std::memcpy(&bits, m.values.data() + ((panel * padded + k) * 16 + r) * 2, 2);
        value = m.form == MatrixForm::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
      }
      values[static_cast<size_t>(n) * m.in_features + (m.column_order.empty() ? k : m.column_order[k])] = value;
    }
  }
  return values;
}

}  // namespace sala
