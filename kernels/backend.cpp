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

#if SALA_HAS_avx2
#include <cpuid.h>
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

#if SALA_HAS_avx2
// AVX2, FMA and F16C, since the units are compiled with all three, and the system's saving of the wide registers. Asked of the
// processor itself: __builtin_cpu_supports reads a variable that the runtime library of Zig, which compiles what we hand out,
// never fills in, so that it answers no to everything.
static bool has_avx2() {
  constexpr unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;  // leaf 1, ecx
  constexpr unsigned avx2 = 1u << 5;                                                      // leaf 7, ebx
  constexpr unsigned wide_registers = 0b110;                                              // xcr0: SSE and AVX state
  unsigned a, b, c, d;
  constexpr unsigned needed = fma | osxsave | avx | f16c;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed) return false;
  unsigned saved, upper;
  __asm__("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));
  if ((saved & wide_registers) != wide_registers) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & avx2);
}
#endif

const std::vector<const Ops*>& backends() {
  static const std::vector<const Ops*> list = [] {
    std::vector<const Ops*> found = {&reference::table, &portable::table};
#if SALA_HAS_avx2
    if (has_avx2()) found.push_back(&avx2::table);
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
