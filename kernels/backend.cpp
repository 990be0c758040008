// Lists the operator tables of this build that the CPU can run. The only place that asks which instructions it has.
#include "kernels/backend.h"

#include <cstdlib>
#include <cstring>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

#if SALA_HAS_neon
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

#if SALA_HAS_avx2
#include <cpuid.h>
#endif

namespace sala {

// kernels/cpu/cpu.h declares these inside the units of one instruction set; here they meet.
namespace portable {
extern const Ops table;
}
namespace avx2 {
extern const Ops table;
}
namespace avx_vnni {
extern const Ops table;
}
namespace avx512_vnni {
extern const Ops table;
}
namespace neon {
extern const Ops table;
}
namespace neon_i8mm {
extern const Ops table;
}

namespace {

#if SALA_HAS_avx2

// What the CPU has and the system saves, of what the tables are compiled for. Asked of the processor itself:
// __builtin_cpu_supports reads a variable that the runtime library of Zig, which compiles what we hand out, never fills in, so
// that it answers no to everything.
struct CpuFeatures {
  bool avx2 = false;         // AVX2, FMA and F16C
  bool avx_vnni = false;     // and VNNI in AVX's encoding
  bool avx512_vnni = false;  // AVX-512 F, BW, DQ, VL and VNNI

  CpuFeatures() {
    constexpr unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;  // leaf 1, ecx
    constexpr unsigned avx2_bit = 1u << 5;                                                   // leaf 7, ebx
    constexpr unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;                   // F, DQ, BW, VL
    constexpr unsigned avx512_vnni_bit = 1u << 11;                                           // leaf 7, ecx
    constexpr unsigned avx_vnni_bit = 1u << 4;                                               // leaf 7.1, eax
    constexpr unsigned ymm_state = 0x06, zmm_state = 0xE6;                                   // of xcr0
    constexpr unsigned needed = fma | osxsave | avx | f16c;
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed) return;
    unsigned saved, upper;
    __asm__("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));
    if ((saved & ymm_state) != ymm_state || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    avx2 = b & avx2_bit;
    avx512_vnni = avx2 && (saved & zmm_state) == zmm_state && (b & avx512) == avx512 && (c & avx512_vnni_bit);
    const unsigned last_subleaf = a;
    if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) avx_vnni = avx2 && (a & avx_vnni_bit);
  }
};

#endif

#if SALA_HAS_neon

struct CpuFeatures {
#if defined(__linux__)
  // The oldest 64-bit boards lack the dot product.
  bool dot_product = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
  bool i8mm = dot_product && (getauxval(AT_HWCAP2) & (1ul << 13));  // HWCAP2_I8MM, which older headers do not name
#elif defined(__APPLE__)
  bool dot_product = true;  // every one of theirs
  bool i8mm = has("hw.optional.arm.FEAT_I8MM");

  static bool has(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
  }
#else
  bool dot_product = true;
  bool i8mm = false;
#endif
};

#endif

struct Backends {
  std::vector<const Ops*> usable = {&reference::table, &portable::table};
  std::vector<UnusableBackend> unusable;

  Backends() {
#if SALA_HAS_avx2
    const CpuFeatures cpu;
    add(avx2::table, cpu.avx2, "AVX2, FMA or F16C");
#if SALA_HAS_avx_vnni
    add(avx_vnni::table, cpu.avx_vnni, "AVX-VNNI");
#endif
#if SALA_HAS_avx512_vnni
    add(avx512_vnni::table, cpu.avx512_vnni, "AVX-512 with VNNI");
#endif
#endif
#if SALA_HAS_neon
    const CpuFeatures cpu;
    add(neon::table, cpu.dot_product, "the 8-bit dot product");
#if SALA_HAS_neon_i8mm
    add(neon_i8mm::table, cpu.i8mm, "the 8-bit matrix product (i8mm)");
#endif
#endif
  }

  void add(const Ops& table, bool has, const char* what) {
    if (has) usable.push_back(&table);
    else unusable.push_back({table.name, what});
  }
};

const Backends& all() {
  static const Backends list;
  return list;
}

}  // namespace

const std::vector<const Ops*>& backends() { return all().usable; }

const std::vector<UnusableBackend>& unusable_backends() { return all().unusable; }

const Ops& best_backend() {
  const char* name = std::getenv("KERNEL_BACKEND");
  if (!name || !*name) return *backends().back();
  std::string names;
  for (const Ops* ops : backends()) {
    if (std::strcmp(ops->name, name) == 0) return *ops;
    names += names.empty() ? "" : ", ";
    names += ops->name;
  }
  for (const UnusableBackend& backend : unusable_backends()) {
    if (std::strcmp(backend.name, name) != 0) continue;
    fail(ErrorCode::unsupported, "KERNEL_BACKEND: expected one of ", names, ", found \"", name, "\", for which this processor lacks ",
         backend.lacking);
  }
  fail(ErrorCode::unsupported, "KERNEL_BACKEND: expected one of ", names, ", found \"", name, "\"");
}

}  // namespace sala
