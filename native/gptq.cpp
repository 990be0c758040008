// Columns in their own order, the usual case, are packed as they come. Others go through rows of codes.
#include "native/gptq.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

namespace sala {

namespace {

constexpr int kBits = 4;
constexpr int kPerWord = 32 / kBits;

// Group of every column, each checked to be one of n_groups.
std::vector<int32_t> read_groups(const GptqTensors& tensors, int in_features, int group_size) {
  std::vector<int32_t> groups(in_features);
  if (!tensors.g_idx) {
    for (int i = 0; i < in_features; ++i) groups[i] = i / group_size;
    return groups;
  }
  std::memcpy(groups.data(), tensors.g_idx->data, tensors.g_idx->nbytes);
  const int n_groups = in_features / group_size;
  for (int i = 0; i < in_features; ++i) {
    if (groups[i] < 0 || groups[i] >= n_groups) {
      fail(ErrorCode::model_invalid, tensors.g_idx->file, ": ", tensors.g_idx->name, "[", i,
           "]: expected a group below ", n_groups, ", found ", groups[i]);
    }
  }
  return groups;
}

// The eight nibbles of a word as the bytes of a 64-bit number, both lowest first.
uint64_t spread_nibbles(uint32_t word) {
  uint64_t x = word;
  x = (x | x << 16) & 0x0000ffff0000ffff;
  x = (x | x << 8) & 0x00ff00ff00ff00ff;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0f;
}

// codes[o, i].
Aligned<uint8_t> read_codes(const TensorView& qweight, int out_features, int in_features) {
  Aligned<uint8_t> codes(static_cast<size_t>(out_features) * in_features);
  // A strip of rows at a time, so that the lines of `codes` being written stay in cache while the words go by.
  constexpr int kStrip = 64;
  uint32_t words[kStrip];
  for (int first = 0; first < out_features; first += kStrip) {
    const int n = std::min(kStrip, out_features - first);
    for (int w = 0; w < in_features / kPerWord; ++w) {
      std::memcpy(words, qweight.data + (static_cast<size_t>(w) * out_features + first) * sizeof words[0],
                  n * sizeof words[0]);
      uint8_t* out = codes.data() + static_cast<size_t>(first) * in_features + w * kPerWord;
      for (int r = 0; r < n; ++r, out += in_features) {
        const uint64_t eight = spread_nibbles(words[r]);
        std::memcpy(out, &eight, sizeof eight);
      }
    }
  }
  return codes;
}

// Column k of each row becomes what column order[k] was.
void permute_columns(Aligned<uint8_t>& codes, const std::vector<int32_t>& order) {
  const size_t in_features = order.size();
  std::vector<uint8_t> row(in_features);
  for (size_t begin = 0; begin < codes.size(); begin += in_features) {
    std::memcpy(row.data(), codes.data() + begin, in_features);
    for (size_t k = 0; k < in_features; ++k) codes[begin + k] = row[order[k]];
  }
}

// zeros[g, o].
Aligned<uint8_t> read_zeros(const TensorView& qzeros, CheckpointFormat format, int out_features, int n_groups) {
  Aligned<uint8_t> zeros(static_cast<size_t>(out_features) * n_groups);
  const uint64_t add = format == CheckpointFormat::gptq ? 0x0101010101010101 : 0;
  for (size_t w = 0; w < zeros.size() / kPerWord; ++w) {
    uint32_t word;
    std::memcpy(&word, qzeros.data + w * sizeof word, sizeof word);
    const uint64_t eight = spread_nibbles(word) + add;
    std::memcpy(zeros.data() + w * kPerWord, &eight, sizeof eight);
  }
  return zeros;
}

// [g, o] → [o, g].
template <class T>
Aligned<T> by_row(const Aligned<T>& by_group, int out_features, int n_groups) {
  Aligned<T> rows(by_group.size());
  for (int o = 0; o < out_features; ++o) {
    for (int g = 0; g < n_groups; ++g) {
      rows[static_cast<size_t>(o) * n_groups + g] = by_group[static_cast<size_t>(g) * out_features + o];
    }
  }
  return rows;
}

}  // namespace

void check_gptq(const GptqTensors& tensors, const QuantizationConfig& quantization, int out_features, int in_features,
                const std::string& module) {
  const int group_size = quantization.group_size;
  if (in_features % group_size != 0) {
    fail(ErrorCode::unsupported, tensors.qweight->file, ": ", module,
         ": expected in_features to be a multiple of group_size ", group_size, ", found ", in_features);
  }
  if (out_features % kPerWord != 0) {
    fail(ErrorCode::unsupported, tensors.qweight->file, ": ", module, ": expected out_features to be a multiple of ",
         kPerWord, ", found ", out_features);
  }
  const int64_t n_groups = in_features / group_size;
  expect_tensor(*tensors.qweight, {Dtype::i32}, {in_features / kPerWord, out_features});
  expect_tensor(*tensors.qzeros, {Dtype::i32}, {n_groups, out_features / kPerWord});
  expect_tensor(*tensors.scales, {Dtype::f32, Dtype::f16, Dtype::bf16}, {n_groups, out_features});
  if (tensors.g_idx) expect_tensor(*tensors.g_idx, {Dtype::i32}, {in_features});
}

Matrix pack_gptq(const GptqTensors& tensors, const QuantizationConfig& quantization, int out_features, int in_features,
                 Arena* arena) {
  const int group_size = quantization.group_size, n_groups = in_features / group_size;
  const std::vector<int32_t> groups = read_groups(tensors, in_features, group_size);
  std::vector<int32_t> n_columns(n_groups);
  for (const int32_t g : groups) ++n_columns[g];

  const Aligned<uint8_t> zeros = read_zeros(*tensors.qzeros, quantization.checkpoint_format, out_features, n_groups);
  const Aligned<float> scales = read_floats(*tensors.scales);
  const bool equal_groups = std::all_of(n_columns.begin(), n_columns.end(), [&](int n) { return n == group_size; });
  const bool all_eight = std::all_of(zeros.begin(), zeros.end(), [](uint8_t zero) { return zero == 8; });
  if (equal_groups && std::is_sorted(groups.begin(), groups.end())) {
    return pack_int4_words(tensors.qweight->data, scales.data(), all_eight ? nullptr : zeros.data(), out_features, in_features,
                           group_size, arena);
  }

  Aligned<uint8_t> codes = read_codes(*tensors.qweight, out_features, in_features);
  const Aligned<uint8_t> row_zeros = by_row(zeros, out_features, n_groups);
  const Aligned<float> row_scales = by_row(scales, out_features, n_groups);
  if (equal_groups) {
    std::vector<int32_t> order(in_features);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return groups[a] < groups[b]; });
    permute_columns(codes, order);
    return pack_int4(codes.data(), row_scales.data(), all_eight ? nullptr : row_zeros.data(), order.data(), out_features,
                     in_features, group_size, arena);
  }
  Aligned<float> values(codes.size());
  for (int o = 0; o < out_features; ++o) {
    for (int i = 0; i < in_features; ++i) {
      const size_t at = static_cast<size_t>(o) * in_features + i, group = static_cast<size_t>(o) * n_groups + groups[i];
      values[at] = row_scales[group] * static_cast<float>(codes[at] - row_zeros[group]);
    }
  }
  return pack_dense(MatrixForm::f32, values.data(), out_features, in_features, arena);
}

}  // namespace sala
