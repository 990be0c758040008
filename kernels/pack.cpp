// Row-major weights into panels of 16 rows (kernels/matrix.h says where each value goes). Runs once per matrix when a
// model is loaded, some 0.4 billion values, so whole words are moved: a row's eight int4 codes become one 32-bit word
// of the panel. Padding (missing rows of the last panel, int8 and dense columns beyond in_features) stays zero; no
// kernel reads activations for padded columns or writes padded rows, so it never shows.
#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/matrix.h"

namespace sala {

static_assert(std::endian::native == std::endian::little, "panels are written as little-endian words");

namespace {

Matrix empty_matrix(MatrixForm form, int out_features, int in_features, int group_size) {
  CHECK(out_features > 0 && in_features > 0);
  Matrix matrix;
  matrix.form = form;
  matrix.out_features = out_features;
  matrix.in_features = in_features;
  matrix.group_size = group_size;
  return matrix;
}

// Values of a panel, padding included.
size_t panel_size(const Matrix& matrix) {
  const size_t columns = (static_cast<size_t>(matrix.in_features) + 7) / 8 * 8;
  return columns * kPanelRows;
}

template <class T>
Aligned<T> zeroed(Arena* arena, size_t n) {
  return arena ? arena->take<T>(n) : Aligned<T>(n);
}

// For what is written in full.
template <class T>
Aligned<T> unwritten(Arena* arena, size_t n) {
  return arena ? arena->take<T>(n) : Aligned<T>::uninitialized(n);
}

// Calls row(panel, row_in_panel, out_row) for each row.
template <class Row>
void for_each_row(const Matrix& matrix, Row row) {
  for (int n = 0; n < matrix.out_features; ++n) row(n / kPanelRows, n % kPanelRows, static_cast<size_t>(n));
}

template <class T>
void pack_columns(Matrix& matrix, const T* values, Arena* arena) {
  const size_t size = panel_size(matrix);
  matrix.values = zeroed<uint8_t>(arena, matrix.n_panels() * size * sizeof(T));
  T* panels = reinterpret_cast<T*>(matrix.values.data());
  for_each_row(matrix, [&](int p, int r, size_t n) {
    const T* from = values + n * matrix.in_features;
    T* to = panels + p * size + r;
    for (int k = 0; k < matrix.in_features; ++k) to[static_cast<size_t>(k) * kPanelRows] = from[k];
  });
}

}  // namespace

Matrix pack_dense(MatrixForm form, const void* values, int out_features, int in_features, Arena* arena) {
  CHECK(form == MatrixForm::f32 || form == MatrixForm::f16 || form == MatrixForm::bf16);
  Matrix matrix = empty_matrix(form, out_features, in_features, 0);
  if (form == MatrixForm::f32) pack_columns(matrix, static_cast<const float*>(values), arena);
  else pack_columns(matrix, static_cast<const uint16_t*>(values), arena);
  return matrix;
}

Matrix pack_int8(const int8_t* values, const float* scales, int out_features, int in_features, Arena* arena) {
  Matrix matrix = empty_matrix(MatrixForm::int8, out_features, in_features, 0);
  const size_t size = panel_size(matrix);
  const bool padded = out_features % kPanelRows != 0 || in_features % 8 != 0;
  matrix.values = padded ? zeroed<uint8_t>(arena, matrix.n_panels() * size) : unwritten<uint8_t>(arena, matrix.n_panels() * size);
  matrix.scales = zeroed<float>(arena, static_cast<size_t>(matrix.n_panels()) * kPanelRows);
  for_each_row(matrix, [&](int p, int r, size_t n) {
    const int8_t* from = values + n * in_features;
    uint8_t* to = matrix.values.data() + p * size + 4 * r;
    int k = 0;
    for (; k + 4 <= in_features; k += 4) std::memcpy(to + static_cast<size_t>(k) * kPanelRows, from + k, 4);
    if (k < in_features) std::memcpy(to + static_cast<size_t>(k) * kPanelRows, from + k, in_features - k);
    matrix.scales[n] = scales[n];
  });
  return matrix;
}

Matrix pack_int4(const uint8_t* codes, const float* scales, const uint8_t* zeros, const int32_t* column_order,
                 int out_features, int in_features, int group_size, Arena* arena) {
  CHECK(group_size > 0 && group_size % 8 == 0 && in_features % group_size == 0);
  Matrix matrix = empty_matrix(MatrixForm::int4, out_features, in_features, group_size);
  const int n_groups = matrix.n_groups();
  const size_t size = panel_size(matrix) / 2;
  const size_t n_scales = static_cast<size_t>(matrix.n_panels()) * n_groups * kPanelRows;
  matrix.values = zeroed<uint8_t>(arena, matrix.n_panels() * size);
  matrix.scales = zeroed<float>(arena, n_scales);
  if (zeros) matrix.zeros = zeroed<uint8_t>(arena, n_scales);
  for_each_row(matrix, [&](int p, int r, size_t n) {
    const uint8_t* from = codes + n * in_features;
    uint8_t* to = matrix.values.data() + p * size + 4 * r;
    for (int k = 0; k < in_features; k += 8) {
      uint32_t low, high;
      std::memcpy(&low, from + k, 4);
      std::memcpy(&high, from + k + 4, 4);
      CHECK(((low | high) & 0xF0F0F0F0u) == 0);
      const uint32_t word = low | high << 4;
      std::memcpy(to + static_cast<size_t>(k) * (kPanelRows / 2), &word, 4);
    }
    for (int g = 0; g < n_groups; ++g) {
      const size_t at = (static_cast<size_t>(p) * n_groups + g) * kPanelRows + r;
      matrix.scales[at] = scales[n * n_groups + g];
      if (zeros) matrix.zeros[at] = zeros[n * n_groups + g];
    }
  });
  if (column_order) {
    matrix.column_order = zeroed<int32_t>(arena, in_features);
    std::memcpy(matrix.column_order.data(), column_order, sizeof(int32_t) * in_features);
  }
  return matrix;
}

namespace {

// The four nibbles of a 16-bit number as the low halves of four bytes.
uint32_t spread_nibbles(uint32_t x) {
  x = (x | x << 8) & 0x00FF00FFu;
  return (x | x << 4) & 0x0F0F0F0Fu;
}

}  // namespace

Matrix pack_int4_words(const uint8_t* words, const float* scales, const uint8_t* zeros, int out_features, int in_features,
                       int group_size, Arena* arena) {
  CHECK(group_size > 0 && group_size % 8 == 0 && in_features % group_size == 0);
  Matrix matrix = empty_matrix(MatrixForm::int4, out_features, in_features, group_size);
  const int n_groups = matrix.n_groups();
  const size_t n_scales = static_cast<size_t>(matrix.n_panels()) * n_groups * kPanelRows;
  matrix.values = unwritten<uint8_t>(arena, matrix.n_panels() * panel_size(matrix) / 2);
  matrix.scales = zeroed<float>(arena, n_scales);
  if (zeros) matrix.zeros = zeroed<uint8_t>(arena, n_scales);
  uint8_t* to = matrix.values.data();
  for (int p = 0; p < matrix.n_panels(); ++p) {
    const int first = p * kPanelRows, n_rows = std::min(kPanelRows, out_features - first);
    for (int i = 0; i < in_features / 8; ++i, to += 4 * kPanelRows) {
      uint32_t panel[kPanelRows] = {};
      std::memcpy(panel, words + 4 * (static_cast<size_t>(i) * out_features + first), 4 * n_rows);
      for (uint32_t& word : panel) word = spread_nibbles(word & 0xFFFF) | spread_nibbles(word >> 16) << 4;
      std::memcpy(to, panel, sizeof panel);
    }
    for (int g = 0; g < n_groups; ++g) {
      const size_t at = (static_cast<size_t>(p) * n_groups + g) * kPanelRows;
      const size_t from = static_cast<size_t>(g) * out_features + first;
      std::copy_n(scales + from, n_rows, matrix.scales.data() + at);
      if (zeros) std::copy_n(zeros + from, n_rows, matrix.zeros.data() + at);
    }
  }
  return matrix;
}

float f16_to_f32(uint16_t bits) {
  // The half's exponent and fraction, read as a float, give its value times 2^-112; the exact product with 2^112
  // re-biases the exponent and normalises subnormal halves. Infinity and NaN keep the full exponent; a NaN becomes
  // quiet, as in F16C.
  const uint32_t magnitude = (bits & 0x7FFFu) << 13;
  uint32_t result = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  if ((bits & 0x7C00u) == 0x7C00u) result = 0x7F800000u | magnitude | ((magnitude & 0x7FFFFFu) ? 0x400000u : 0u);
  return std::bit_cast<float>(result | (bits & 0x8000u) << 16);
}

float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

}  // namespace sala
