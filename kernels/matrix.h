// A weight matrix in the layout that every CPU table reads: panels of 16 output rows. Packed once at load.
// Not here: file formats (native/gptq.h turns those into the row-major arrays that the pack functions take).
//
// Panels (K = in_features, padded to a multiple of 8; the last panel's missing rows are zero):
//   int4  for each 8 columns 64 bytes: byte 4·r + b of half v (32 bytes, rows 8·v + r) holds column 8i + b in its low
//         nibble and column 8i + 4 + b in its high nibble. Codes 0..15; value = scale · (code − zero).
//   int8  for each 4 columns 64 bytes: byte 4·r + b of row r (0..15) is column 4i + b. value = scale · code.
//   f32, f16, bf16  for each column 16 values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/aligned.h"

namespace sala {

constexpr int kPanelRows = 16;

enum class MatrixForm { f32, f16, bf16, int8, int4 };

struct Matrix {
  MatrixForm form = MatrixForm::f32;
  int out_features = 0;
  int in_features = 0;
  int group_size = 0;            // int4: columns that share a scale, a divisor of in_features; otherwise 0
  Aligned<uint8_t> values;       // panels, see above
  Aligned<float> scales;         // int4 [n_panels, in_features / group_size, 16]; int8 [n_panels, 16]; else empty
  Aligned<uint8_t> zeros;        // int4 [n_panels, in_features / group_size, 16], or empty: 8 everywhere
  Aligned<int32_t> column_order; // packed column k multiplies input column column_order[k]; empty: k

  int n_panels() const { return (out_features + kPanelRows - 1) / kPanelRows; }
  int n_groups() const { return group_size ? in_features / group_size : 0; }
  size_t bytes() const {
    return values.size() + zeros.size() + sizeof(float) * scales.size() + sizeof(int32_t) * column_order.size();
  }
};

// The pack functions take a matrix's memory from `arena`, if there is one.
// values [out_features, in_features] row-major; form f32, f16 or bf16, values of that type.
Matrix pack_dense(MatrixForm form, const void* values, int out_features, int in_features, Arena* arena = nullptr);
// values [out_features, in_features], scales [out_features].
Matrix pack_int8(const int8_t* values, const float* scales, int out_features, int in_features, Arena* arena = nullptr);
// codes [out_features, in_features] 0..15; scales [out_features, in_features / group_size]; zeros the same shape (0..16)
// or null for 8; column_order [in_features] or null. group_size: a multiple of 8 that divides in_features.
Matrix pack_int4(const uint8_t* codes, const float* scales, const uint8_t* zeros, const int32_t* column_order,
                 int out_features, int in_features, int group_size, Arena* arena = nullptr);

// The same from words of eight codes: nibble j, lowest first, of word [i, n] of words [in_features / 8, out_features] (little-endian,
// at any alignment) is the code of row n and column 8i + j. scales and zeros as the panels have them, but without padding:
// [in_features / group_size, out_features].
Matrix pack_int4_words(const uint8_t* words, const float* scales, const uint8_t* zeros, int out_features, int in_features,
                       int group_size, Arena* arena = nullptr);

float f16_to_f32(uint16_t bits);
float bf16_to_f32(uint16_t bits);

}  // namespace sala
