// Lists the operator tables of this build that the CPU can run. The only place that asks which instructions it has.
#include "kernels/backend.h"

#include <cstdlib>
#include <cstring>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

#if SALA_HAS_neon && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace sala {

// kernels/cpu/cpu.h declares these inside the units of one instruction set; here they meet.
namespace portable {
extern const Ops table;
}
#if SALA_HAS_avx2
namespace avx2 {
extern const Ops table;
}
#endif
#if SALA_HAS_neon
namespace neon {
extern const Ops table;
}
#endif

const std::vector<const Ops*>& backends() {
  static const std::vector<const Ops*> list = [] {
    std::vector<const Ops*> found = {&reference::table, &portable::table};
#if SALA_HAS_avx2
    // All three, since the units are compiled with all three; the check includes the system's saving of wide registers.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
      found.push_back(&avx2::table);
    }
#endif
#if SALA_HAS_neon
    // Every Apple CPU has the 8-bit dot product; on Linux the oldest 64-bit boards lack it.
#if defined(__linux__)
    const bool has_dot_product = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    const bool has_dot_product = true;
#endif
    if (has_dot_product) found.push_back(&neon::table);
#endif
    return found;
  }();
  return list;
}

const Ops& best_backend() {
  const char* name = std::getenv("KERNEL_BACKEND");
  if (!name || !*name) return *backends().back();
  std::string names;
  for (const Ops* ops : backends()) {
    if (std::strcmp(ops->name, name) == 0) return *ops;
    names += names.empty() ? "" : ", ";
    names += ops->name;
  }
  fail(ErrorCode::unsupported, "KERNEL_BACKEND: expected one of ", names, ", found \"", name, "\"");
}

}  // namespace sala
