// Blocks of a scope in two passes. The first one reads all keys once and keeps, for each head, the softmax's maximum and sum, and its
// largest logit in each block. From these the second one knows which few blocks can be among the best, and scores them alone.
//
// Why no other block can be. With Λ = m + ln l of a head, its P of a window is e^(z − Λ). Let z[h] be a head's largest logit among the
// block's own windows, n the heads of a group, and
//   u = max over the heads of (z[h] − Λ[h]),   U = Σ over the heads e^(z[h] − Λ[h])
// The largest A of the block's own windows, S, has e^u ≤ S ≤ U ≤ n · e^u: A of the window that u is of has that term, and none is
// negative; and each term of any A is at most that head's term of U. So
//   1. with τ, the k-th largest u, k blocks have an S of e^τ or more: one with u < τ − ln n is below all of these;
//   2. the blocks with u ≥ τ are scored; the k-th largest S of theirs, σ, is no greater than that of all blocks: one with U < σ is below.
// Blocks that are below are left out. What such a block may lack is the score that it has by the last window of the block before:
// that one adds it to the list, and if it is left out itself, that window's A is below, too.
// All of it is computed with rounding. z is the same floats in both passes; what is subtracted from it is off by some 2^-23 of its size,
// exponentials by 1.5e-6 of theirs, quotients and sums by some 2^-24; kSlack and kSlackOfLog are a hundred times that and more.
#include "kernels/cpu/best_k.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd_wide.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kMaxHeads = 128;  // of a group
constexpr int kSlots = kBlockLanes * kBlockSlots;  // of the blocks that lie interleaved
constexpr int kSectionGroups = kSelectSectionBlocks / kBlockLanes;
constexpr int kChunkGroups = 8;  // whose logits stay in L1 until their maximum is known
constexpr float kSlack = 1e-2f, kSlackOfLog = 1e-5f;
constexpr float kLeastLog = -80;  // e^x is 0 soon below it (simd.h): then every block may be as good as the k-th best
constexpr float kInfinity = __builtin_inff();

static_assert(kSelectSectionBlocks % kBlockLanes == 0 && kSectionGroups % kChunkGroups == 0);

// Takes arrays out of a thread's scratch memory; with no memory, counts the bytes.
struct Arrays {
  uint8_t* memory;
  size_t used = 0;

  template <class T>
  T* take(int64_t n) {
    T* array = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += (sizeof(T) * n + 63) / 64 * 64;
    return array;
  }
};

// The queries of the heads of one group, of one token, in 16 bit. z = factors[h] · y, where y = scale of the key · integer product.
struct Queries {
  int n_heads, head_dim;
  int16_t* rows;  // [n_heads, head_dim], as dot_wide wants them
  float* factors;
  int32_t* sums;  // [n_heads, 16], scratch

  Queries(const SelectBlocksArgs& args, Arrays& arrays)
      : n_heads(args.n_heads / args.n_kv_heads), head_dim(args.head_dim), rows(arrays.take<int16_t>(int64_t{n_heads} * head_dim)),
        factors(arrays.take<float>(n_heads)), sums(arrays.take<int32_t>(int64_t{n_heads} * 16)) {}

  void round(const SelectBlocksArgs& args, int t, int g) {
    for (int h = 0; h < n_heads; ++h) {
      const float* q = args.q + (int64_t{t} * args.n_heads + g * n_heads + h) * head_dim;
      F32x8 maxima = F32x8::zero();
      for (int c = 0; c < head_dim; c += kLanes) maxima = max(abs(F32x8::load(q + c)), maxima);
      const float largest = max_lane(maxima);
      const float scale = largest < 1e-30f ? 1 : largest / kWideMost;
      factors[h] = args.q_scale[t] * scale;
      int16_t wide[kWideColumns];
      for (int c = 0; c < head_dim; ++c) {
        // 1.5 · 2^23 has a last bit of value 1: adding it rounds to an integer, ties to even.
        float x = (q[c] / scale + 12582912.0f) - 12582912.0f;
        x = x > -kWideMost ? x : -kWideMost;  // what is no number, too
        wide[c] = static_cast<int16_t>(x < kWideMost ? x : kWideMost);
      }
      store_wide_row(wide, head_dim, rows + int64_t{h} * head_dim);
    }
  }

  template <int Rows>
  int dots(const int8_t* panel, int h) const {
    dot_wide<Rows>(panel, rows + int64_t{h} * head_dim, head_dim, sums + 16 * h);
    return h + Rows;
  }

  // y of the slots of eight blocks, [n_heads, stride]; −∞ where there is no window.
  void meet(const int8_t* keys, const float* scales, float* y, int64_t stride) const {
    const F32x8 none = F32x8::set1(-kInfinity);
    for (int at = 0; at < kSlots; at += 16) {
      for (int h = 0; h < n_heads;) {
        const int left = n_heads - h;
        if (left >= 8) h = dots<8>(keys + at * head_dim, h);
        else if (left == 7) h = dots<7>(keys + at * head_dim, h);
        else if (left >= 4) h = dots<4>(keys + at * head_dim, h);
        else if (left >= 2) h = dots<2>(keys + at * head_dim, h);
        else h = dots<1>(keys + at * head_dim, h);
      }
      for (int i = at; i < at + 16; i += kLanes) {
        const F32x8 scale = F32x8::load(scales + i);
        for (int h = 0; h < n_heads; ++h) max(I32x8::load(sums + 16 * h + i - at).to_f32() * scale, none).store(y + h * stride + i);
      }
    }
  }
};

// What the first pass leaves for each head of one group and token.
struct Scored {
  float* peaks;      // [n_heads, peak_stride]: largest y of each block
  int64_t peak_stride;
  float* maxima;     // [n_heads, n_sections]: largest y of each section
  float* sums;       // [n_heads, n_sections]: Σ exp(z − the section's largest)
  int n_sections;

  Scored(const SelectBlocksArgs& args, int t, int g)
      : peak_stride(n_block_slots(args.n_blocks) / kBlockSlots),
        n_sections((args.n_blocks + kSelectSectionBlocks - 1) / kSelectSectionBlocks) {
    const int n_per_group = args.n_heads / args.n_kv_heads;
    peaks = args.memory + (int64_t{t} * args.n_heads + g * n_per_group) * (peak_stride + 2 * n_sections);
    maxima = peaks + n_per_group * peak_stride;
    sums = maxima + int64_t{n_per_group} * n_sections;
  }
};

// The first pass for one token and group.
struct Scoring {
  const SelectBlocksArgs& args;
  Queries queries;
  float* y;  // [n_heads, kChunkGroups, kSlots]

  Scoring(const SelectBlocksArgs& args, Arrays& arrays)
      : args(args), queries(args, arrays), y(arrays.take<float>(int64_t{queries.n_heads} * kChunkGroups * kSlots)) {}

  void run(int t, int g, int s, const Scored& scored);
};

// Section s.
void Scoring::run(int t, int g, int s, const Scored& scored) {
  queries.round(args, t, g);
  const int64_t first_group = int64_t{s} * kSectionGroups, all_groups = scored.peak_stride / kBlockLanes;
  const int64_t last_group = first_group + kSectionGroups < all_groups ? first_group + kSectionGroups : all_groups;
  const int8_t* keys = args.keys + (g * all_groups + first_group) * kSlots * args.head_dim;
  const float* scales = args.scales + (g * all_groups + first_group) * kSlots;
  constexpr int64_t kStride = kChunkGroups * kSlots;
  float maxima[kMaxHeads];
  F32x8 sums[kMaxHeads], peaks[kMaxHeads];
  for (int h = 0; h < queries.n_heads; ++h) {
    maxima[h] = -kInfinity;
    sums[h] = F32x8::zero();
  }
  for (int64_t group = first_group; group < last_group; group += kChunkGroups) {
    const int n_groups = last_group - group < kChunkGroups ? static_cast<int>(last_group - group) : kChunkGroups;
    for (int h = 0; h < queries.n_heads; ++h) peaks[h] = F32x8::set1(-kInfinity);
    for (int i = 0; i < n_groups; ++i, keys += int64_t{kSlots} * args.head_dim, scales += kSlots) {
      float* to = y + i * kSlots;
      queries.meet(keys, scales, to, kStride);
      for (int h = 0; h < queries.n_heads; ++h, to += kStride) {
        const F32x8 peak = max(max(F32x8::load(to), F32x8::load(to + 8)), max(F32x8::load(to + 16), F32x8::load(to + 24)));
        peak.store(scored.peaks + h * scored.peak_stride + (group + i) * kBlockLanes);
        peaks[h] = max(peak, peaks[h]);
      }
    }
    for (int h = 0; h < queries.n_heads; ++h) {
      const float peak = max_lane(peaks[h]), factor = queries.factors[h];
      if (peak > maxima[h]) {
        sums[h] = sums[h] * F32x8::set1(exp(factor * maxima[h] - factor * peak));
        maxima[h] = peak;
      }
      if (maxima[h] == -kInfinity) continue;  // no window yet
      const F32x8 factors = F32x8::set1(factor), minus_max = F32x8::set1(-(factor * maxima[h]));
      const float* from = y + h * kStride;
      F32x8 sum = sums[h];
      for (int i = 0; i < n_groups * kSlots; i += kLanes) sum = sum + exp_of_negative(fma(factors, F32x8::load(from + i), minus_max));
      sums[h] = sum;
    }
  }
  for (int h = 0; h < queries.n_heads; ++h) {
    scored.maxima[h * scored.n_sections + s] = maxima[h];
    scored.sums[h * scored.n_sections + s] = sum(sums[h]);
  }
}

// The second pass for one token and group.
struct Selection {
  const SelectBlocksArgs& args;
  Queries queries;
  float *max, *sum, *log;  // [n_heads]: m, l and Λ
  float* u;                // [blocks, filled up to eights]
  float* best;             // [k]: the largest u so far, ascending
  int32_t* candidates;     // [n_blocks]
  float* upper;            // [n_blocks]: U of each candidate
  float *own, *last;       // [n_blocks]: of each candidate, S and A of the last slot; own < 0: not scored
  int32_t* ids;            // [n_blocks]: blocks in the end, with their scores
  float* scores;
  uint32_t* keys;
  int8_t* panel;           // the keys of eight candidates, and their scales
  float *panel_scales, *y;

  Selection(const SelectBlocksArgs& args, Arrays& arrays) : args(args), queries(args, arrays) {
    max = arrays.take<float>(queries.n_heads);
    sum = arrays.take<float>(queries.n_heads);
    log = arrays.take<float>(queries.n_heads);
    u = arrays.take<float>(args.n_blocks + kBlockLanes);
    best = arrays.take<float>(args.k);
    candidates = arrays.take<int32_t>(args.n_blocks);
    upper = arrays.take<float>(args.n_blocks);
    own = arrays.take<float>(args.n_blocks);
    last = arrays.take<float>(args.n_blocks);
    ids = arrays.take<int32_t>(args.n_blocks);
    scores = arrays.take<float>(args.n_blocks);
    keys = arrays.take<uint32_t>(args.n_blocks);
    panel = arrays.take<int8_t>(kSlots * args.head_dim);
    panel_scales = arrays.take<float>(kSlots);
    y = arrays.take<float>(int64_t{queries.n_heads} * kSlots);
  }

  void normalise(const Scored& scored) {
    for (int h = 0; h < queries.n_heads; ++h) {
      const float* maxima = scored.maxima + int64_t{h} * scored.n_sections;
      const float* sums = scored.sums + int64_t{h} * scored.n_sections;
      float peak = -kInfinity;
      for (int s = 0; s < scored.n_sections; ++s) peak = maxima[s] > peak ? maxima[s] : peak;
      max[h] = queries.factors[h] * peak;
      sum[h] = 0;
      for (int s = 0; s < scored.n_sections; ++s) sum[h] = fma(sums[s], exp(queries.factors[h] * maxima[s] - max[h]), sum[h]);
      log[h] = max[h] + __builtin_logf(sum[h]);
    }
  }

  // u of all blocks, and the k largest of them.
  void bound(const Scored& scored) {
    forget_best();
    for (int b = 0; b < args.n_blocks; b += kBlockLanes) {
      F32x8 most = F32x8::set1(-kInfinity);
      for (int h = 0; h < queries.n_heads; ++h) {
        const F32x8 peaks = F32x8::load(scored.peaks + h * scored.peak_stride + b);
        most = sala::SALA_ISA::max(fma(F32x8::set1(queries.factors[h]), peaks, F32x8::set1(-log[h])), most);
      }
      most.store(u + b);
      if (!(max_lane(most) > best[0])) continue;
      for (int i = 0; i < kBlockLanes; ++i) take_best(u[b + i]);
    }
  }

  void forget_best() {
    for (int i = 0; i < args.k; ++i) best[i] = -kInfinity;
  }
  void take_best(float x) {
    if (!(x > best[0])) return;
    int i = 0;
    for (; i + 1 < args.k && best[i + 1] < x; ++i) best[i] = best[i + 1];
    best[i] = x;
  }

  // Lists the blocks with u ≥ least, and U of each.
  int list_candidates(const Scored& scored, float least) {
    int n = 0;
    for (int b = 0; b < args.n_blocks; b += kBlockLanes) {
      const int n_lanes = args.n_blocks - b < kBlockLanes ? args.n_blocks - b : kBlockLanes;
      const int n_before = n;
      for (int i = 0; i < n_lanes; ++i) {
        if (!(u[b + i] < least)) candidates[n++] = b + i;
      }
      if (n == n_before) continue;
      F32x8 total = F32x8::zero();
      for (int h = 0; h < queries.n_heads; ++h) {
        const F32x8 peaks = F32x8::load(scored.peaks + h * scored.peak_stride + b);
        total = total + exp_of_negative(fma(F32x8::set1(queries.factors[h]), peaks, F32x8::set1(-max[h]))) / F32x8::set1(sum[h]);
      }
      float lanes[kBlockLanes];
      total.store(lanes);
      for (int i = n_before; i < n; ++i) upper[i] = lanes[candidates[i] - b];
    }
    return n;
  }

  // Scores those of the n candidates that are wanted and have not been.
  template <class Wanted>
  void score_candidates(const int8_t* all_keys, const float* all_scales, int n, Wanted wanted) {
    int batch[kBlockLanes], n_batch = 0;
    for (int i = 0; i < n; ++i) {
      if (own[i] < 0 && wanted(i)) batch[n_batch++] = i;
      if (n_batch < kBlockLanes && (i + 1 < n || n_batch == 0)) continue;
      score(all_keys, all_scales, batch, n_batch);
      n_batch = 0;
    }
  }

  // own and last of n candidates, eight at most: their keys are gathered as those of neighbours lie.
  void score(const int8_t* all_keys, const float* all_scales, const int* batch, int n) {
    const int n_words = args.head_dim / 4;
    for (int i = 0; i < kSlots; ++i) panel_scales[i] = __builtin_nanf("");
    for (int lane = 0; lane < n; ++lane) {
      const int64_t b = candidates[batch[lane]];
      for (int i = 0; i < kBlockSlots; ++i) {
        const int8_t* from = all_keys + block_key_index(b, i, 0, args.head_dim);
        int8_t* to = panel + block_key_index(lane, i, 0, args.head_dim);
        for (int w = 0; w < n_words; ++w) std::memcpy(to + 64 * w, from + 64 * w, 4);
        panel_scales[block_scale_index(lane, i)] = all_scales[block_scale_index(b, i)];
      }
    }
    queries.meet(panel, panel_scales, y, kSlots);
    F32x8 most = F32x8::zero(), a = most;
    for (int i = 0; i < kSlots; i += kLanes) {
      a = F32x8::zero();
      for (int h = 0; h < queries.n_heads; ++h) {
        const F32x8 weight =
            exp_of_negative(fma(F32x8::set1(queries.factors[h]), F32x8::load(y + h * kSlots + i), F32x8::set1(-max[h])));
        a = a + weight / F32x8::set1(sum[h]);
      }
      most = sala::SALA_ISA::max(a, most);
    }
    float lanes[2][kBlockLanes];
    most.store(lanes[0]);
    a.store(lanes[1]);
    for (int lane = 0; lane < n; ++lane) {
      own[batch[lane]] = lanes[0][lane];
      last[batch[lane]] = lanes[1][lane];
    }
  }

  void run(const Scored& scored, int t, int g, int32_t* selected) {
    queries.round(args, t, g);
    normalise(scored);
    bound(scored);
    float largest = 0;  // of the heads' |Λ|
    for (int h = 0; h < queries.n_heads; ++h) largest = __builtin_fabsf(log[h]) > largest ? __builtin_fabsf(log[h]) : largest;
    const float slack = kSlack + kSlackOfLog * largest, first = best[0] > kLeastLog ? best[0] : -kInfinity;
    const int n = list_candidates(scored, first - __builtin_logf(static_cast<float>(queries.n_heads)) - slack);

    const int64_t n_slots = n_block_slots(args.n_blocks);
    const int8_t* all_keys = args.keys + g * n_slots * args.head_dim;
    const float* all_scales = args.scales + g * n_slots;
    std::memset(panel, 0, int64_t{kSlots} * args.head_dim);
    for (int i = 0; i < n; ++i) own[i] = -1;
    score_candidates(all_keys, all_scales, n, [&](int i) { return !(u[candidates[i]] < first); });
    forget_best();
    for (int i = 0; i < n; ++i) take_best(own[i]);
    const float second = best[0] * (1 - kSlack);
    score_candidates(all_keys, all_scales, n, [&](int i) { return !(upper[i] < second); });

    int n_listed = 0;
    for (int i = 0; i < n; ++i) {
      if (own[i] < 0) continue;
      const int b = candidates[i], after = b + 1;
      // The one before may have put it on the list already, with its last window.
      const bool is_listed = n_listed > 0 && ids[n_listed - 1] == b;
      if (!is_listed) scores[n_listed++] = 0;
      ids[n_listed - 1] = b;
      scores[n_listed - 1] = own[i] > scores[n_listed - 1] ? own[i] : scores[n_listed - 1];
      if (after == args.n_blocks || !args.continued[after]) continue;
      ids[n_listed] = after;
      scores[n_listed++] = last[i];
    }
    select_best(scores, n_listed, args.k, keys, selected);
    for (int i = 0; i < args.k && selected[i] >= 0; ++i) selected[i] = ids[selected[i]];
  }
};

// A pass with its arrays in this thread's scratch memory.
template <class Pass>
Pass with_scratch(const SelectBlocksArgs& args) {
  Arrays counted{nullptr};
  Pass unused(args, counted);
  Arrays arrays{static_cast<uint8_t*>(Stream::scratch(counted.used))};
  return Pass(args, arrays);
}

}  // namespace

void select_blocks(const SelectBlocksArgs& args, Stream& stream) {
  CHECK(args.head_dim % kLanes == 0 && args.head_dim <= kWideColumns && args.n_heads % args.n_kv_heads == 0);
  CHECK(args.n_heads / args.n_kv_heads <= kMaxHeads && args.n_blocks >= 0 && args.k >= 0);
  if (args.n_blocks <= args.k || args.k == 0) {
    for (int64_t i = 0; i < int64_t{args.n_tokens} * args.n_kv_heads * args.k; ++i) {
      args.selected[i] = i % args.k < args.n_blocks ? static_cast<int32_t>(i % args.k) : -1;
    }
    return;
  }
  const int n_sections = (args.n_blocks + kSelectSectionBlocks - 1) / kSelectSectionBlocks;
  for (int first = 0; first < args.n_tokens; first += kSelectTokens) {
    const int n_tokens = args.n_tokens - first < kSelectTokens ? args.n_tokens - first : kSelectTokens;
    // Neighbouring tasks meet the same keys.
    stream.parallel_for(n_sections * args.n_kv_heads * n_tokens, 1, [&](int first_task, int last_task) {
      Scoring scoring = with_scratch<Scoring>(args);
      for (int task = first_task; task < last_task; ++task) {
        const int t = task % n_tokens, g = task / n_tokens % args.n_kv_heads, s = task / n_tokens / args.n_kv_heads;
        scoring.run(first + t, g, s, Scored(args, t, g));
      }
    });
    stream.parallel_for(n_tokens * args.n_kv_heads, 1, [&](int first_task, int last_task) {
      Selection selection = with_scratch<Selection>(args);
      for (int task = first_task; task < last_task; ++task) {
        const int t = task / args.n_kv_heads, g = task % args.n_kv_heads;
        selection.run(Scored(args, t, g), first + t, g, args.selected + (int64_t{first + t} * args.n_kv_heads + g) * args.k);
      }
    });
  }
}

}  // namespace sala::SALA_ISA
