// GPTQ (Frantar et al. 2022) tensors of one linear layer → the packed int4 matrix. Layout of AutoGPTQ and gptqmodel, 4
// bit. Not here: which layers are quantised (weights.h), the packing itself (kernels/matrix.h).
//
// With o = output row, i = input column, g = g_idx[i]: weight[o, i] = scales[g, o] · (code − zero), where
//   code  nibble i mod 8 (lowest first) of qweight[i / 8, o];
//   zero  nibble o mod 8 of qzeros[g, o / 8], plus one in format gptq (1 … 16), as it is in gptq_v2 (0 … 15).
#pragma once

#include <string>

#include "kernels/matrix.h"
#include "native/model_config.h"
#include "native/safetensors.h"

namespace sala {

struct GptqTensors {
  const TensorView* qweight;  // I32 [in_features / 8, out_features]
  const TensorView* qzeros;   // I32 [in_features / group_size, out_features / 8]
  const TensorView* scales;   // F16, BF16 or F32 [in_features / group_size, out_features]
  const TensorView* g_idx;    // I32 [in_features]; null: column i belongs to group i / group_size
};

// Throws model_invalid for a shape or dtype that is not the one above, unsupported where in_features is no multiple of
// group_size or out_features none of 8. `module` is the layer's name, for messages. Reads no tensor data.
void check_gptq(const GptqTensors& tensors, const QuantizationConfig& quantization, int out_features, int in_features,
                const std::string& module);

// For tensors that check_gptq accepts. The matrix is int4. Where g_idx is not trivial but every group has group_size
// columns (act order), the columns are sorted by group and column_order says where they came from; groups of unequal
// size have no int4 form: then the matrix is f32, dequantised exactly. Throws model_invalid for a g_idx outside the
// groups or a scale that is not finite. Its memory is taken from `arena`, if there is one.
Matrix pack_gptq(const GptqTensors& tensors, const QuantizationConfig& quantization, int out_features, int in_features,
                 Arena* arena = nullptr);

}  // namespace sala
