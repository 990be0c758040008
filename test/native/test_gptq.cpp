// native/gptq.h: random layers, packed as AutoGPTQ packs them by a writer of our own, must come back as the exact
// products of scale and code: both formats, symmetric or not, every group size, scale dtype and kind of g_idx.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "native/gptq.h"
#include "test/native/model_files.h"

using namespace sala;

namespace {

enum class GroupOrder { absent, trivial, act_order, unequal };

struct Layer {
  int out_features, in_features, group_size;
  CheckpointFormat format = CheckpointFormat::gptq;
  bool sym = true;
  std::string scale_dtype = "F16";
  GroupOrder order = GroupOrder::trivial;
};

// The layer's tensors in a file image, and the values [out_features, in_features] that they mean.
struct Written {
  std::string image;
  std::vector<float> values;
};

Written write_layer(const Layer& layer, uint32_t seed, const std::function<void(FileTensors&)>& alter = {}) {
  std::mt19937 random(seed);
  const int out = layer.out_features, in = layer.in_features, n_groups = in / layer.group_size;
  std::vector<int32_t> g_idx(in);
  for (int i = 0; i < in; ++i) g_idx[i] = i / layer.group_size;
  if (layer.order == GroupOrder::act_order) std::shuffle(g_idx.begin(), g_idx.end(), random);
  if (layer.order == GroupOrder::unequal) {
    for (int& g : g_idx) g = static_cast<int>(random() % n_groups);
    g_idx[0] = g_idx[1] = 0;
    if (std::count(g_idx.begin(), g_idx.end(), 0) == layer.group_size) g_idx[in - 1] = g_idx[in - 1] == 0 ? 1 : 0;
  }
  std::vector<int> codes(out * in), zeros(n_groups * out);  // [out, in], [groups, out]
  std::vector<float> scales(n_groups * out);
  for (int& code : codes) code = static_cast<int>(random() % 16);
  const bool plus_one = layer.format == CheckpointFormat::gptq;
  for (int& zero : zeros) zero = layer.sym ? 8 : static_cast<int>(random() % 16) + plus_one;
  for (float& scale : scales) scale = static_cast<float>(1 + random() % 255) / 1024;  // exact in every dtype

  std::vector<uint32_t> qweight(in / 8 * out), qzeros(n_groups * out / 8);
  for (int i = 0; i < in; ++i) {
    for (int o = 0; o < out; ++o) qweight[i / 8 * out + o] |= static_cast<uint32_t>(codes[o * in + i]) << 4 * (i % 8);
  }
  for (int g = 0; g < n_groups; ++g) {
    for (int o = 0; o < out; ++o) {
      qzeros[g * (out / 8) + o / 8] |= static_cast<uint32_t>(zeros[g * out + o] - plus_one) << 4 * (o % 8);
    }
  }
  std::string scale_bytes = bytes_of(scales);
  if (layer.scale_dtype != "F32") {
    std::vector<uint16_t> halves;
    for (const float scale : scales) {
      uint16_t bits = 0;  // the one that means this number: there are few enough to look
      while ((layer.scale_dtype == "F16" ? f16_to_f32(bits) : bf16_to_f32(bits)) != scale) ++bits;
      halves.push_back(bits);
    }
    scale_bytes = bytes_of(halves);
  }
  const int64_t rows = out, columns = in, groups = n_groups;
  FileTensors tensors = {{"m.qweight", {"I32", {columns / 8, rows}, bytes_of(qweight)}},
                         {"m.qzeros", {"I32", {groups, rows / 8}, bytes_of(qzeros)}},
                         {"m.scales", {layer.scale_dtype, {groups, rows}, scale_bytes}}};
  if (layer.order != GroupOrder::absent) tensors["m.g_idx"] = {"I32", {columns}, bytes_of(g_idx)};
  if (alter) alter(tensors);

  Written written{safetensors_image(tensors, seed % 4), std::vector<float>(out * in)};
  for (int o = 0; o < out; ++o) {
    for (int i = 0; i < in; ++i) {
      const int at = g_idx[i] * out + o;
      written.values[o * in + i] = scales[at] * static_cast<float>(codes[o * in + i] - zeros[at]);
    }
  }
  return written;
}

Matrix read_layer(const Layer& layer, const std::string& image) {
  const std::vector<TensorView> views =
      parse_safetensors(reinterpret_cast<const uint8_t*>(image.data()), image.size(), "x.safetensors");
  const auto find = [&](const std::string& name) {
    const auto it = std::find_if(views.begin(), views.end(), [&](const TensorView& view) { return view.name == name; });
    return it == views.end() ? nullptr : &*it;
  };
  const GptqTensors tensors = {find("m.qweight"), find("m.qzeros"), find("m.scales"), find("m.g_idx")};
  QuantizationConfig quantization;
  quantization.group_size = layer.group_size;
  quantization.checkpoint_format = layer.format;
  check_gptq(tensors, quantization, layer.out_features, layer.in_features, "m");
  return pack_gptq(tensors, quantization, layer.out_features, layer.in_features);
}

void check_values(const Layer& layer, const Written& written, const Matrix& matrix) {
  CHECK(matrix.out_features == layer.out_features);
  CHECK(matrix.in_features == layer.in_features);
  CHECK(unpack(matrix) == written.values);
}

}  // namespace

TEST_CASE("values survive: both formats, symmetric or not, group sizes, scale dtypes") {
  uint32_t seed = 1;
  for (const CheckpointFormat format : {CheckpointFormat::gptq, CheckpointFormat::gptq_v2}) {
    for (const bool sym : {true, false}) {
      for (const int group_size : {32, 64, 128}) {
        for (const char* scale_dtype : {"F16", "BF16", "F32"}) {
          const Layer layer{40, 256, group_size, format, sym, scale_dtype};
          const Written written = write_layer(layer, seed++);
          const Matrix matrix = read_layer(layer, written.image);
          CHECK(matrix.form == MatrixForm::int4);
          CHECK(matrix.group_size == group_size);
          CHECK(matrix.zeros.empty() == sym);
          CHECK(matrix.column_order.empty());
          check_values(layer, written, matrix);
        }
      }
    }
  }
}

TEST_CASE("odd sizes: one panel and less, many, one group") {
  uint32_t seed = 100;
  for (const int out_features : {8, 16, 24, 136}) {
    for (const int in_features : {32, 96, 160}) {
      const Layer layer{out_features, in_features, 32, CheckpointFormat::gptq, false};
      const Written written = write_layer(layer, seed++);
      check_values(layer, written, read_layer(layer, written.image));
    }
  }
}

TEST_CASE("g_idx: absent, act order, unequal groups") {
  uint32_t seed = 200;
  for (const bool sym : {true, false}) {
    Layer layer{24, 256, 64, CheckpointFormat::gptq, sym, "F16", GroupOrder::absent};
    Written written = write_layer(layer, seed++);
    Matrix matrix = read_layer(layer, written.image);
    CHECK(matrix.column_order.empty());
    check_values(layer, written, matrix);

    layer.order = GroupOrder::act_order;
    written = write_layer(layer, seed++);
    matrix = read_layer(layer, written.image);
    CHECK(matrix.form == MatrixForm::int4);
    REQUIRE(matrix.column_order.size() == 256);
    std::vector<int32_t> columns(matrix.column_order.begin(), matrix.column_order.end());
    for (size_t k = 1; k < columns.size(); ++k) {
      if (k % 64 != 0) CHECK(columns[k - 1] < columns[k]);  // ascending within a group
    }
    std::sort(columns.begin(), columns.end());
    for (int k = 0; k < 256; ++k) CHECK(columns[k] == k);
    check_values(layer, written, matrix);

    layer.order = GroupOrder::unequal;
    written = write_layer(layer, seed++);
    matrix = read_layer(layer, written.image);
    CHECK(matrix.form == MatrixForm::f32);
    check_values(layer, written, matrix);
  }
}

TEST_CASE("what cannot be a layer is refused with its name and numbers") {
  const Layer layer{16, 128, 64};
  const auto refused = [&](ErrorCode code, const std::vector<std::string>& parts,
                           const std::function<void(FileTensors&)>& alter) {
    const Written written = write_layer(layer, 7, alter);
    check_error(code, parts, [&] { read_layer(layer, written.image); });
  };
  const auto shape = [](const std::string& name, std::vector<int64_t> to) {
    return [name, to](FileTensors& tensors) { tensors.at(name).shape = to; };
  };
  refused(ErrorCode::model_invalid, {"x.safetensors: m.qweight: expected [16, 16], found [8, 32]"},
          shape("m.qweight", {8, 32}));
  refused(ErrorCode::model_invalid, {"m.qzeros: expected [2, 2], found [4]"}, shape("m.qzeros", {4}));
  refused(ErrorCode::model_invalid, {"m.scales: expected [2, 16], found [16, 2]"}, shape("m.scales", {16, 2}));
  refused(ErrorCode::model_invalid, {"m.g_idx: expected [128], found [128, 1]"}, shape("m.g_idx", {128, 1}));
  refused(ErrorCode::unsupported, {"m.qweight: expected I32, found U32"},
          [](auto& tensors) { tensors.at("m.qweight").dtype = "U32"; });
  refused(ErrorCode::unsupported, {"m.scales: expected F32 or F16 or BF16, found I16"},
          [](auto& tensors) { tensors.at("m.scales").dtype = "I16"; });
  for (const int32_t group : {2, -1, INT32_MAX}) {
    refused(ErrorCode::model_invalid,
            {"x.safetensors: m.g_idx[5]: expected a group below 2, found " + std::to_string(group)},
            [group](auto& tensors) { std::memcpy(tensors.at("m.g_idx").bytes.data() + 20, &group, 4); });
  }
  refused(ErrorCode::model_invalid, {"x.safetensors: m.scales: expected finite values"},
          [](auto& tensors) { tensors.at("m.scales").bytes[3] = 0x7c; });

  // Sizes that the format has no room for.
  const Written written = write_layer(layer, 7);
  check_error(ErrorCode::unsupported,
              {"x.safetensors: m: expected in_features to be a multiple of group_size 64, found 96"},
              [&] { read_layer({16, 96, 64}, written.image); });
  check_error(ErrorCode::unsupported, {"x.safetensors: m: expected out_features to be a multiple of 8, found 12"},
              [&] { read_layer({12, 128, 64}, written.image); });
}
