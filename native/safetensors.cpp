// Format: https://github.com/huggingface/safetensors (8 bytes header length, little-endian; JSON header; data without
// holes). All numbers of a header are untrusted: they are bounded before they are added or multiplied.
#include "native/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>

#include "kernels/matrix.h"
#include "native/json.h"

namespace sala {

static_assert(std::endian::native == std::endian::little, "tensor data is used as it lies in the file");

namespace {

using nlohmann::json;

constexpr size_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxIndexBytes = 100'000'000;
constexpr uint64_t kMaxDimension = uint64_t{1} << 62;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

struct DtypeInfo {
  const char* name;
  size_t size;
};

// In the order of Dtype.
constexpr DtypeInfo kDtypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
                                 {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                                 {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};

Dtype read_dtype(const json& entry, const std::string& place) {
  const json value = entry.value("dtype", json());
  if (!value.is_string()) fail(ErrorCode::model_invalid, place, ": dtype: expected a name, found ", json_text(value));
  for (size_t i = 0; i < std::size(kDtypes); ++i) {
    if (value.get_ref<const std::string&>() == kDtypes[i].name) return static_cast<Dtype>(i);
  }
  fail(ErrorCode::unsupported, place, ": dtype: expected one of BOOL, U8 … F64, found ", json_text(value));
}

// A non-negative integer of at most `max`.
bool read_count(const json& value, uint64_t max, uint64_t* count) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > max) return false;
  *count = value.get<uint64_t>();
  return true;
}

// data_begin: where in the file the data of all tensors begins.
TensorView read_tensor(const std::string& name, const json& entry, uint64_t data_begin, size_t n_data_bytes,
                       const std::string& file) {
  const std::string place = file + ": " + name;
  if (!entry.is_object()) {
    fail(ErrorCode::model_invalid, place, ": expected an object with dtype, shape and data_offsets, found ",
         json_text(entry));
  }
  TensorView view;
  view.name = name;
  view.file = file;
  view.dtype = read_dtype(entry, place);

  const json shape = entry.value("shape", json());
  if (!shape.is_array()) fail(ErrorCode::model_invalid, place, ": shape: expected a list, found ", json_text(shape));
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  uint64_t n_elements = empty ? 0 : 1;
  for (const json& dimension : shape) {
    uint64_t n = 0;
    if (!read_count(dimension, kMaxDimension, &n) || (!empty && n_elements > n_data_bytes / n)) {
      fail(ErrorCode::model_invalid, place, ": shape: expected sizes within the file's ", n_data_bytes,
           " data bytes, found ", json_text(shape));
    }
    n_elements *= n;
    view.shape.push_back(static_cast<int64_t>(n));
  }

  const json offsets = entry.value("data_offsets", json());
  uint64_t begin = 0, end = 0;
  if (!offsets.is_array() || offsets.size() != 2 || !read_count(offsets[0], n_data_bytes, &begin) ||
      !read_count(offsets[1], n_data_bytes, &end) || begin > end) {
    fail(ErrorCode::model_invalid, place, ": data_offsets: expected [begin, end] within the file's ", n_data_bytes,
         " data bytes, found ", json_text(offsets));
  }
  // n_elements ≤ n_data_bytes < 2^63, an element has at most 8 bytes: compare by division.
  const size_t size = dtype_size(view.dtype);
  if ((end - begin) % size != 0 || (end - begin) / size != n_elements) {
    fail(ErrorCode::model_invalid, place, ": data_offsets: expected ", n_elements, " elements of ", size, " bytes for ",
         dtype_name(view.dtype), " ", shape_text(view.shape), ", found ", end - begin, " bytes");
  }
  view.offset = data_begin + begin;
  view.nbytes = static_cast<size_t>(end - begin);
  return view;
}

}  // namespace

const char* dtype_name(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)].name; }

size_t dtype_size(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)].size; }

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t n : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(n);
  }
  return text + "]";
}

void expect_tensor(const TensorView& tensor, const std::vector<Dtype>& dtypes, const std::vector<int64_t>& shape) {
  if (tensor.shape != shape) {
    fail(ErrorCode::model_invalid, tensor.file, ": ", tensor.name, ": expected ", shape_text(shape), ", found ",
         shape_text(tensor.shape));
  }
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype) != dtypes.end()) return;
  std::string names;
  for (const Dtype dtype : dtypes) names += (names.empty() ? "" : " or ") + std::string(dtype_name(dtype));
  fail(ErrorCode::unsupported, tensor.file, ": ", tensor.name, ": expected ", names, ", found ",
       dtype_name(tensor.dtype));
}

Aligned<float> read_floats(const TensorView& tensor) {
  CHECK(tensor.dtype == Dtype::f32 || tensor.dtype == Dtype::f16 || tensor.dtype == Dtype::bf16);
  Aligned<float> values(tensor.nbytes / dtype_size(tensor.dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    // By memcpy: the file need not align its tensors.
    if (tensor.dtype == Dtype::f32) {
      std::memcpy(&values[i], tensor.data + i * sizeof(float), sizeof(float));
    } else {
      uint16_t bits;
      std::memcpy(&bits, tensor.data + i * sizeof bits, sizeof bits);
      values[i] = tensor.dtype == Dtype::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
    }
    if (!std::isfinite(values[i])) {
      fail(ErrorCode::model_invalid, tensor.file, ": ", tensor.name, ": expected finite values, found ", values[i],
           " at ", i);
    }
  }
  return values;
}

namespace {

// Length of the JSON header, from the file's first 8 bytes.
size_t header_length(const uint8_t* front, size_t n_bytes, const std::string& file) {
  if (n_bytes < 8)
    fail(ErrorCode::model_invalid, file, ": expected a header length of 8 bytes, found a file of ", n_bytes);
  uint64_t n_header_bytes = 0;
  for (int i = 7; i >= 0; --i) n_header_bytes = n_header_bytes << 8 | front[i];
  const size_t n_left = n_bytes - 8;
  if (n_header_bytes > n_left || n_header_bytes > kMaxHeaderBytes) {
    fail(ErrorCode::model_invalid, file, ": expected a header of at most ", std::min(n_left, kMaxHeaderBytes),
         " bytes (the file has ", n_bytes, "), found a header length of ", n_header_bytes);
  }
  return static_cast<size_t>(n_header_bytes);
}

// The tensors of a file of n_bytes with this JSON header, in the order of their data, which is not read.
std::vector<TensorView> parse_header(std::string_view text, size_t n_bytes, const std::string& file) {
  const uint64_t data_begin = 8 + text.size();
  const size_t n_data_bytes = n_bytes - static_cast<size_t>(data_begin);
  const json header = parse_json(text, file, ErrorCode::model_invalid);
  if (!header.is_object()) fail(ErrorCode::model_invalid, file, ": expected a JSON object, found ", json_text(header));

  std::vector<TensorView> views;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") views.push_back(read_tensor(name, entry, data_begin, n_data_bytes, file));
  }
  // The data must be exactly the tensors, one after the other: what overlaps, is missing or is left over is damage.
  std::sort(views.begin(), views.end(), [](const TensorView& a, const TensorView& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.nbytes < b.nbytes;
  });
  size_t end = 0;
  for (const TensorView& view : views) {
    const size_t begin = static_cast<size_t>(view.offset - data_begin);
    if (begin != end) {
      fail(ErrorCode::model_invalid, file, ": ", view.name, ": expected its data at ", end,
           ", where the tensor before it ends, found it at ", begin, begin < end ? " (overlap)" : " (hole)");
    }
    end = begin + view.nbytes;
  }
  if (end != n_data_bytes) {
    fail(ErrorCode::model_invalid, file, ": expected ", end, " data bytes for its tensors, found ", n_data_bytes);
  }
  return views;
}

std::vector<TensorView> read_header(const RandomAccessFile& file) {
  uint8_t front[8] = {};
  const size_t n_bytes = static_cast<size_t>(file.size());
  file.read(0, front, std::min(n_bytes, sizeof front));
  std::string text(header_length(front, n_bytes, file.path()), '\0');
  file.read(sizeof front, text.data(), text.size());
  return parse_header(text, n_bytes, file.path());
}

}  // namespace

std::vector<TensorView> parse_safetensors(const uint8_t* image, size_t n_bytes, const std::string& file) {
  const std::string_view text(reinterpret_cast<const char*>(image) + 8, header_length(image, n_bytes, file));
  std::vector<TensorView> views = parse_header(text, n_bytes, file);
  for (TensorView& view : views) view.data = image + view.offset;
  return views;
}

namespace {

// name → part, from the index; parts are plain file names, so that an index cannot reach outside its folder.
std::map<std::string, std::string> read_index(const std::string& path) {
  const json index =
      parse_json(read_file(path, kMaxIndexBytes, ErrorCode::model_invalid), path, ErrorCode::model_invalid);
  const json weight_map = index.is_object() ? index.value("weight_map", json()) : json();
  if (!weight_map.is_object() || weight_map.empty()) {
    fail(ErrorCode::model_invalid, path, ": weight_map: expected an object from tensor to file name, found ",
         json_text(weight_map));
  }
  std::map<std::string, std::string> parts;
  for (const auto& [name, value] : weight_map.items()) {
    const std::string part = value.is_string() ? value.get<std::string>() : "";
    const bool plain = part.find_first_of(std::string("/\\:\0", 4)) == std::string::npos;
    if (!plain || part.size() <= 12 || part.front() == '.' || part.compare(part.size() - 12, 12, ".safetensors") != 0) {
      fail(ErrorCode::model_invalid, path, ": ", name,
           ": expected the name of a .safetensors file in this folder, found ", json_text(value));
    }
    parts[name] = part;
  }
  return parts;
}

// A part that the index does not know is a sign of a mixed-up folder: two downloads, or a conversion run twice.
void refuse_extra_parts(const std::string& folder, const std::string& index_path, const std::set<std::string>& parts) {
  for (const std::string& name : list_folder(folder, ErrorCode::model_invalid)) {
    const bool is_part = name.rfind("model-", 0) == 0 && name.size() > 12 && name.find("-of-") != std::string::npos &&
                         name.compare(name.size() - 12, 12, ".safetensors") == 0;
    if (is_part && parts.count(name) == 0) {
      fail(ErrorCode::model_invalid, index_path, ": expected only the ", parts.size(), " parts it names, found ", name,
           " in the folder as well");
    }
  }
}

}  // namespace

Checkpoint::Checkpoint(const std::string& folder) : folder_(folder) {
  const auto open_part = [&](const std::string& path) {
    parts_.push_back(std::make_unique<RandomAccessFile>(path, ErrorCode::model_invalid));
    return read_header(*parts_.back());
  };
  const std::string single = join_path(folder, kSingleFile), index_path = join_path(folder, kIndexFile);
  // As transformers does: the single file wins.
  if (file_status(single).kind != FileStatus::Kind::none) {
    for (TensorView& view : open_part(single)) tensors_.emplace(view.name, Entry{view, 0});
    return;
  }
  if (file_status(index_path).kind == FileStatus::Kind::none) {
    fail(ErrorCode::model_not_found, folder, ": expected ", kSingleFile, " or ", kIndexFile, ", found neither");
  }

  const std::map<std::string, std::string> index = read_index(index_path);
  std::set<std::string> part_names;
  for (const auto& [name, part] : index) part_names.insert(part);
  refuse_extra_parts(folder, index_path, part_names);
  for (const std::string& part : part_names) {
    const std::string path = join_path(folder, part);
    for (TensorView& view : open_part(path)) {
      const auto it = index.find(view.name);
      if (it == index.end() || it->second != part) {
        fail(ErrorCode::model_invalid, path, ": ", view.name, ": expected in ",
             it == index.end() ? "no part, by the index," : it->second + ", by the index,", " found here");
      }
      tensors_.emplace(view.name, Entry{view, parts_.size() - 1});
    }
  }
  for (const auto& [name, part] : index) {
    if (!has(name))
      fail(ErrorCode::model_invalid, join_path(folder, part), ": ", name, ": expected by the index, not found");
  }
}

const TensorView& Checkpoint::get(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) fail(ErrorCode::model_invalid, folder_, ": ", name, ": expected this tensor, found none");
  return it->second.view;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : tensors_) names.push_back(name);
  return names;
}

void Checkpoint::read(const TensorView& tensor, uint8_t* to) const {
  const auto it = tensors_.find(tensor.name);
  CHECK(it != tensors_.end() && it->second.view.offset == tensor.offset);
  parts_[it->second.part]->read(tensor.offset, to, tensor.nbytes);
}

}  // namespace sala
