// A window's key meets the basis column by column: eight vectors of the basis at a time are the lanes.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd_int8.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kMaxDims = 64;  // of the basis: eight sums in registers
constexpr int kTaskBlocks = 256;

// x[i] = Σ basis[c, i] · key[c].
template <int Lanes>
void project(const float* basis, const float* key, int head_dim, float* x) {
  F32x8 sum[Lanes];
  for (F32x8& s : sum) s = F32x8::zero();
  for (int c = 0; c < head_dim; ++c, basis += Lanes * kLanes) {
    const F32x8 component = F32x8::set1(key[c]);
#pragma GCC unroll 8
    for (int i = 0; i < Lanes; ++i) sum[i] = fma(F32x8::load(basis + i * kLanes), component, sum[i]);
  }
  for (int i = 0; i < Lanes; ++i) sum[i].store(x + i * kLanes);
}

void project(int n_dims, const float* basis, const float* key, int head_dim, float* x) {
  switch (n_dims / kLanes) {
    case 1: return project<1>(basis, key, head_dim, x);
    case 2: return project<2>(basis, key, head_dim, x);
    case 3: return project<3>(basis, key, head_dim, x);
    case 4: return project<4>(basis, key, head_dim, x);
    case 5: return project<5>(basis, key, head_dim, x);
    case 6: return project<6>(basis, key, head_dim, x);
    case 7: return project<7>(basis, key, head_dim, x);
    default: return project<8>(basis, key, head_dim, x);
  }
}

void block(const CoarseKeysArgs& args, int g, int b, float* key, uint8_t* keys, float* scales) {
  const int d = args.head_dim, n_dims = args.coarse_dim;
  const float* mean = args.mean + int64_t{g} * d;
  const BlockWindows none{}, &windows = b < args.n_blocks ? args.windows[int64_t{g} * args.n_blocks + b] : none;
  for (int slot = 0; slot < kBlockSlots; ++slot) {
    float x[kMaxDims] = {}, scale = __builtin_nanf("");
    if (slot < windows.n) {
      const F32x8 of_codes = F32x8::set1(windows.scales[slot]);
      for (int c = 0; c < d; c += kLanes) {
        fma(of_codes, F32x8::load_i8(windows.k + int64_t{slot} * d + c), F32x8::zero() - F32x8::load(mean + c)).store(key + c);
      }
      project(n_dims, args.basis + int64_t{g} * d * n_dims, key, d, x);
      F32x8 maxima = F32x8::zero();
      for (int i = 0; i < n_dims; i += kLanes) maxima = max(abs(F32x8::load(x + i)), maxima);
      const float largest = max_lane(maxima);
      scale = largest < 1e-30f ? 0 : largest / 15;
    }
    scales[coarse_scale_index(b, slot)] = scale;
    for (int i = 0; i < n_dims; ++i) {
      // 1.5 · 2^23 has a last bit of value 1: adding it rounds to an integer, ties to even.
      const float code = scale > 0 ? (x[i] / scale + 12582912.0f) - 12582912.0f : 0;
      keys[coarse_key_index(b, slot, i, n_dims)] = static_cast<uint8_t>(kCoarseZero + static_cast<int>(code));
    }
  }
}

}  // namespace

void coarse_keys(const CoarseKeysArgs& args, Stream& stream) {
  CHECK(args.head_dim % kLanes == 0 && args.coarse_dim % kLanes == 0 && args.coarse_dim > 0 && args.coarse_dim <= kMaxDims);
  const int64_t n_slots = n_coarse_slots(args.n_blocks);
  const int n_blocks = static_cast<int>(n_slots / kBlockSlots), n_parts = (n_blocks + kTaskBlocks - 1) / kTaskBlocks;
  stream.parallel_for(n_parts * args.n_kv_heads, 1, [&](int first_task, int last_task) {
    float* key = static_cast<float*>(Stream::scratch(sizeof(float) * args.head_dim));
    for (int task = first_task; task < last_task; ++task) {
      const int g = task / n_parts, first = task % n_parts * kTaskBlocks;
      const int last = first + kTaskBlocks < n_blocks ? first + kTaskBlocks : n_blocks;
      for (int b = first; b < last; ++b) block(args, g, b, key, args.keys + g * n_slots * args.coarse_dim, args.scales + g * n_slots);
    }
  });
}

}  // namespace sala::SALA_ISA
