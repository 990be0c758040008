// The tensors of a model folder: model.safetensors, or model.safetensors.index.json and its parts. Not here: what the
// tensors mean (weights.h). Every length and offset is checked against the file before it is used, and data is read, never
// mapped: a file that is cut meanwhile (a download that starts anew) is an error then, not the end of the process.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "native/platform.h"

namespace sala {

enum class Dtype { boolean, u8, i8, f8_e4m3, f8_e5m2, i16, u16, f16, bf16, i32, u32, f32, i64, u64, f64 };

const char* dtype_name(Dtype dtype);  // as in the file: "F16", "I32", …
size_t dtype_size(Dtype dtype);       // in bytes

struct TensorView {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;  // row-major, little-endian, at any alignment; null while it is not in memory
  uint64_t offset = 0;            // of the data in the file
  size_t nbytes = 0;
  std::string file;  // path, for messages
};

// "[64, 128]", "[]" for a scalar.
std::string shape_text(const std::vector<int64_t>& shape);

// Throws model_invalid unless the tensor has this shape, unsupported unless it has one of these dtypes.
void expect_tensor(const TensorView& tensor, const std::vector<Dtype>& dtypes, const std::vector<int64_t>& shape);

// The values of an F32, F16 or BF16 tensor. Throws model_invalid if one is not finite.
Aligned<float> read_floats(const TensorView& tensor);

// One .safetensors image in memory (also the fuzzer's door): all tensors of it, in the order of their data. Throws
// model_invalid, or unsupported for a dtype we do not know; `file` appears in messages and in the views.
std::vector<TensorView> parse_safetensors(const uint8_t* image, size_t n_bytes, const std::string& file);

class Checkpoint {
 public:
  // Throws model_not_found where there is neither a model.safetensors nor an index, model_invalid for anything damaged:
  // truncated, overlapping, parts missing or too many, a tensor twice, an index that names files outside the folder.
  explicit Checkpoint(const std::string& folder);

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const TensorView& get(const std::string& name) const;  // throws model_invalid, naming tensor and folder
  std::vector<std::string> names() const;                // ascending

  // Reads the nbytes of a tensor of get(). Throws model_invalid where the file has become shorter. From any thread.
  void read(const TensorView& tensor, uint8_t* to) const;

  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
  std::vector<std::unique_ptr<RandomAccessFile>> parts_;
  struct Entry {
    TensorView view;
    size_t part;
  };
  std::map<std::string, Entry> tensors_;
};

}  // namespace sala
