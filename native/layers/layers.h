// The two kinds of attention layers, called by model.cpp for the rows of all parts of a pass.
#pragma once

#include "native/model.h"

namespace sala {

// From the input norm to the addition of o_proj's output to the residual stream. Both append to the sequences' own state and take
// what they need from `memory`.
void lightning_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights);
void sparse_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights);

}  // namespace sala
