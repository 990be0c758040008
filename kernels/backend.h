// Lists the operator tables of this machine and picks one. KERNEL_BACKEND=name forces one.
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace sala {

// Tables that this build has and this CPU can run, best last; "reference" is always the first, "portable" the second.
const std::vector<const Ops*>& backends();

// The one named by KERNEL_BACKEND, else the best. Throws unsupported, naming those there are, if the name is unknown.
const Ops& best_backend();

}  // namespace sala
