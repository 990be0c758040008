// The directions in which the keys of a scope differ most: what coarse keys are told in (kernels/ops.h).
#pragma once

#include "kernels/ops.h"

namespace sala {

// windows [n_blocks], of one K/V head. mean [head_dim]: of the windows' keys. basis [head_dim, coarse_dim]: orthonormal columns that span,
// nearly, the coarse_dim directions of the largest variance; columns of zeros where the keys have fewer. Both from at most 1,024 windows
// at equal distances. Coarse keys need a good basis, not the best one, and the same one everywhere: all of it is in double, in one order.
void coarse_basis(const BlockWindows* windows, int n_blocks, int head_dim, int coarse_dim, float* basis, float* mean);

}  // namespace sala
