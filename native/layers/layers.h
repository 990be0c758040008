// The two kinds of attention layers, called by model.cpp for the rows of all parts of a pass.
#pragma once

#include "native/model.h"

namespace sala {

// x [n_rows, hidden_size]: normed input; out [n_rows, hidden_size]: o_proj's output. Both append to the sequences' own state and
// take what they need from `memory`.
void lightning_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights, const float* x, float* out);
void sparse_attn_layer(Forward& forward, Workspace::Frame& memory, const LayerWeights& weights, const float* x, float* out);

}  // namespace sala
