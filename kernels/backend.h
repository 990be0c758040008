// Lists the operator tables of this machine and picks one. KERNEL_BACKEND=name forces one.
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace sala {

// Tables that this build has and this CPU can run, best last; "reference" is always the first, "portable" the second.
const std::vector<const Ops*>& backends();

// Tables that this build has and this CPU cannot run, and what it lacks.
struct UnusableBackend {
  const char* name;
  const char* lacking;  // "AVX-VNNI"
};
const std::vector<UnusableBackend>& unusable_backends();

// The one named by KERNEL_BACKEND, else the best. Throws unsupported, naming those there are, if the name is unknown or the CPU cannot run
// it.
const Ops& best_backend();

}  // namespace sala
