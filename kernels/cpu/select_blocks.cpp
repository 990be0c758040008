// Blocks of a scope in two passes. The first one meets the coarse keys of all windows and keeps, for each head, the softmax's maximum and
// sum and what each block has of it. The second one ranks the blocks by that, gathers the windows of the best as they are stored, and
// scores these alone: of 15,700 blocks 980 are candidates.
#include "kernels/cpu/best_k.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product8.h"
#include "kernels/cpu/simd_wide.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kMaxHeads = 128;                          // of a group
constexpr int kPanel = 16;                              // keys that are met at a time
constexpr int kReach = kBlockSlots + 1;                 // windows of a block at most, with the one that reaches into it
constexpr int kGroupSlots = kBlockLanes * kBlockSlots;  // of the blocks that lie interleaved
constexpr int kChunkGroups = kSelectChunkBlocks / kBlockLanes;
constexpr int kChunkSlots = kChunkGroups * kGroupSlots;
constexpr int kAhead = 8;          // candidates whose windows are on their way
constexpr int kAheadBytes = 8192;  // of coarse keys
constexpr float kInfinity = __builtin_inff();

static_assert(kSelectChunkBlocks % kBlockLanes == 0 && kGroupSlots == 2 * kPanel);

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

// The queries of the heads of one group, of one token, in 16 bit. z = factors[h] · (scale of the key · integer product).
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

  // z of the 16 keys of a panel, [n_heads, stride]; −∞ where a key has no scale.
  void meet(const int8_t* panel, const float* scales, float* z, int64_t stride) const {
    for (int h = 0; h < n_heads;) {
      const int left = n_heads - h;
      if (left >= 8) h = dots<8>(panel, h);
      else if (left == 7) h = dots<7>(panel, h);
      else if (left >= 4) h = dots<4>(panel, h);
      else if (left >= 2) h = dots<2>(panel, h);
      else h = dots<1>(panel, h);
    }
    const F32x8 none = F32x8::set1(-kInfinity);
    for (int i = 0; i < kPanel; i += kLanes) {
      const F32x8 scale = F32x8::load(scales + i);
      for (int h = 0; h < n_heads; ++h) {
        const F32x8 y = I32x8::load(sums + 16 * h + i).to_f32() * scale;
        max(F32x8::set1(factors[h]) * y, none).store(z + h * stride + i);
      }
    }
  }
};

// The same queries in the basis of the coarse keys, in 7 bit. y = factors[h] · (scale of the key · integer product) + of_mean[h].
struct CoarseQueries {
  int n_heads, n_dims;
  int8_t* rows;  // [n_heads, n_dims]
  float *factors, *of_mean;
  int32_t* zeros;  // [n_heads, 16]: what the codes' zero adds, taken off
  int32_t* sums;   // [n_heads, 16], scratch
  float* x;        // [n_dims], scratch

  CoarseQueries(const SelectBlocksArgs& args, Arrays& arrays)
      : n_heads(args.n_heads / args.n_kv_heads), n_dims(args.coarse.coarse_dim), rows(arrays.take<int8_t>(int64_t{n_heads} * n_dims)),
        factors(arrays.take<float>(n_heads)), of_mean(arrays.take<float>(n_heads)), zeros(arrays.take<int32_t>(int64_t{n_heads} * 16)),
        sums(arrays.take<int32_t>(int64_t{n_heads} * 16)), x(arrays.take<float>(n_dims)) {}

  void round(const SelectBlocksArgs& args, int t, int g) {
    const int d = args.head_dim;
    const float *basis = args.coarse.basis + int64_t{g} * d * n_dims, *mean = args.coarse.mean + int64_t{g} * d;
    for (int h = 0; h < n_heads; ++h) {
      const float* q = args.q + (int64_t{t} * args.n_heads + g * n_heads + h) * d;
      F32x8 with_mean = F32x8::zero(), maxima = F32x8::zero();
      for (int c = 0; c < d; c += kLanes) with_mean = fma(F32x8::load(q + c), F32x8::load(mean + c), with_mean);
      int first = 0;
      for (; first + 4 * kLanes <= n_dims; first += 4 * kLanes) maxima = max(components<4>(q, basis, d, first), maxima);
      for (; first < n_dims; first += kLanes) maxima = max(components<1>(q, basis, d, first), maxima);
      const float largest = max_lane(maxima), scale = largest < 1e-30f ? 1 : largest / 63;
      factors[h] = args.q_scale[t] * scale;
      of_mean[h] = args.q_scale[t] * sum(with_mean);
      for (int i = 0; i < n_dims; i += kLanes) (F32x8::load(x + i) / F32x8::set1(scale)).store(x + i);
      int32_t total = 0;
      for (int i = 0; i < n_dims; ++i) {
        float code = (x[i] + 12582912.0f) - 12582912.0f;
        code = code > -63 ? code : -63;  // what is no number, too
        rows[h * n_dims + i] = static_cast<int8_t>(code < 63 ? code : 63);
        total += rows[h * n_dims + i];
      }
      for (int i = 0; i < 16; ++i) zeros[16 * h + i] = -kCoarseZero * total;
    }
  }

  // N vectors of q in the basis, to x from component `first` on; returns their largest magnitudes.
  template <int N>
  F32x8 components(const float* q, const float* basis, int d, int first) const {
    F32x8 sums[N];
    for (F32x8& sum : sums) sum = F32x8::zero();
    for (int c = 0; c < d; ++c) {
      for (int i = 0; i < N; ++i) sums[i] = fma(F32x8::load(basis + c * n_dims + first + i * kLanes), F32x8::set1(q[c]), sums[i]);
    }
    F32x8 maxima = F32x8::zero();
    for (int i = 0; i < N; ++i) {
      maxima = max(abs(sums[i]), maxima);
      sums[i].store(x + first + i * kLanes);
    }
    return maxima;
  }

  template <int Rows>
  int dots(const uint8_t* panel, int h) const {
    dot_codes<Rows>(panel, rows + int64_t{h} * n_dims, n_dims, n_dims, sums + 16 * h);
    return h + Rows;
  }

  // y, but for factor and mean, of the slots of eight blocks, [n_heads, stride]; NaN where there is no window.
  void meet(const uint8_t* keys, const float* scales, float* y, int64_t stride) const {
    for (int at = 0; at < kGroupSlots; at += kPanel, keys += int64_t{kPanel} * n_dims) {
      // A panel's lines at a time, into L2: more at once, or into L1, wait for each other.
      for (const uint8_t *line = keys + kAheadBytes, *end = line + kPanel * n_dims; line < end; line += 64) __builtin_prefetch(line, 0, 2);
      for (int i = 0; i < 16 * n_heads; i += 16) I32x16::load(zeros + i).store(sums + i);
      for (int h = 0; h < n_heads;) {
        const int left = n_heads - h;
        if constexpr (kTokenTile >= 8) {
          if (left >= 7) {
            h = left == 7 ? dots<7>(keys, h) : dots<8>(keys, h);
            continue;
          }
        }
        if (left >= 4) h = dots<4>(keys, h);
        else if (left == 3) h = dots<3>(keys, h);
        else if (left == 2) h = dots<2>(keys, h);
        else h = dots<1>(keys, h);
      }
      const F32x16 scale = F32x16::load(scales + at);
      float* to = y + at;
      for (const int32_t *of_head = sums, *end = sums + 16 * n_heads; of_head < end; of_head += 16, to += stride) {
        (I32x16::load(of_head).to_f32() * scale).store(to);
      }
    }
  }
};

// What the first pass leaves for the heads of one group and token; y as CoarseQueries::meet gives it. What there is of each block has
// half of a float's bits: it goes to memory and back.
struct Ranked {
  int64_t n_chunks, n_rows;
  uint16_t* weights;  // [n_heads, n_rows]: exp(largest y of a block's windows − the chunk's largest)
  uint16_t* masses;   // [n_heads, n_rows]: Σ exp(y − the chunk's largest) of a block's own windows
  float* maxima;      // [n_heads, n_chunks]: largest y of each chunk
  float* sums;        // [n_heads, n_chunks]: Σ of its masses

  Ranked(const SelectBlocksArgs& args, int t, int g) : n_chunks(n_select_chunks(args.n_blocks)), n_rows(n_chunks * kSelectChunkBlocks) {
    const int n_per_group = args.n_heads / args.n_kv_heads;
    maxima = args.memory + (int64_t{t} * args.n_heads + g * n_per_group) * (n_rows + 2 * n_chunks);
    sums = maxima + n_per_group * n_chunks;
    weights = reinterpret_cast<uint16_t*>(sums + n_per_group * n_chunks);
    masses = weights + n_per_group * n_rows;
  }
};

// The first pass for one token and group.
struct Ranking {
  const SelectBlocksArgs& args;
  CoarseQueries queries;
  float* y;         // [n_heads, kChunkSlots]
  float* reaching;  // [n_heads]: y of the last slot of the block before
  int rounded_t = -1, rounded_g = -1;  // whose queries are rounded

  Ranking(const SelectBlocksArgs& args, Arrays& arrays)
      : args(args), queries(args, arrays), y(arrays.take<float>(int64_t{queries.n_heads} * kChunkSlots)),
        reaching(arrays.take<float>(queries.n_heads)) {}

  // Section s.
  void run(int t, int g, int s, const Ranked& ranked) {
    if (t != rounded_t || g != rounded_g) queries.round(args, t, g);
    rounded_t = t;
    rounded_g = g;
    const int64_t n_slots = n_coarse_slots(args.n_blocks);
    const uint8_t* keys = args.coarse.keys + g * n_slots * queries.n_dims;
    const float* scales = args.coarse.scales + g * n_slots;
    const int64_t first = int64_t{s} * kSelectSectionChunks, rest = ranked.n_chunks - first;
    const int64_t last = first + (rest < kSelectSectionChunks ? rest : kSelectSectionChunks);
    for (int h = 0; h < queries.n_heads; ++h) reaching[h] = -kInfinity;
    if (first > 0) {
      const int64_t slot = first * kChunkSlots - kGroupSlots;
      queries.meet(keys + slot * queries.n_dims, scales + slot, y, kChunkSlots);
      for (int h = 0; h < queries.n_heads; ++h) reaching[h] = y[h * kChunkSlots + kGroupSlots - 1];
    }
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t slot = chunk * kChunkSlots;
      const int n_groups = static_cast<int>(((n_slots < slot + kChunkSlots ? n_slots : slot + kChunkSlots) - slot) / kGroupSlots);
      for (int i = 0; i < n_groups; ++i) {
        const int64_t at = slot + i * kGroupSlots;
        queries.meet(keys + at * queries.n_dims, scales + at, y + i * kGroupSlots, kChunkSlots);
      }
      take_chunk(chunk, n_groups, ranked);
    }
  }

  void take_chunk(int64_t chunk, int n_groups, const Ranked& ranked) {
    const int64_t first = chunk * kSelectChunkBlocks;
    for (int h = 0; h < queries.n_heads; ++h) {
      const float *of_head = y + h * kChunkSlots, factor = queries.factors[h];
      uint16_t *weights = ranked.weights + h * ranked.n_rows + first, *masses = ranked.masses + h * ranked.n_rows + first;
      float peaks[kSelectChunkBlocks];       // largest y of a block's own windows
      float before[1 + kSelectChunkBlocks];  // y of the last slots, one block behind
      before[0] = reaching[h];
      F32x8 largest = F32x8::set1(-kInfinity);
      for (int i = 0; i < n_groups; ++i) {
        const float* of_group = of_head + i * kGroupSlots;
        const F32x8 slot3 = F32x8::load(of_group + 24);
        // Where one is NaN, max gives the other one if that comes second.
        F32x8 own = max(F32x8::load(of_group), F32x8::set1(-kInfinity));
        own = max(slot3, max(F32x8::load(of_group + 16), max(F32x8::load(of_group + 8), own)));
        largest = max(own, largest);
        own.store(peaks + i * kBlockLanes);
        slot3.store(before + 1 + i * kBlockLanes);
      }
      reaching[h] = before[n_groups * kBlockLanes];
      const float maximum = max_lane(largest);
      const F32x16 factors = F32x16::set1(factor), minus_max = F32x16::set1(-(factor * maximum));
      F32x8 sums = F32x8::zero();
      for (int i = 0; i < n_groups; ++i) {
        const float* of_group = of_head + i * kGroupSlots;
        const F32x16 first = exp_of_negative_by_lines(fma(factors, F32x16::load(of_group), minus_max));
        const F32x16 last = exp_of_negative_by_lines(fma(factors, F32x16::load(of_group + 16), minus_max));
        const F32x8 mass = (first.low_half() + first.high_half()) + (last.low_half() + last.high_half());
        mass.store_bf16(masses + i * kBlockLanes);
        sums = sums + mass;
      }
      // Only now: what was stored a moment ago cannot be loaded across two stores without waiting for them. The window that reaches into
      // the chunk's first block may be above the chunk's largest.
      const F32x8 factors8 = F32x8::set1(factor), minus_max8 = F32x8::set1(-(factor * maximum)), most = F32x8::set1(60);
      for (int i = 0; i < n_groups * kBlockLanes; i += kLanes) {
        const F32x8 peak = max(F32x8::load(before + i), F32x8::load(peaks + i));
        exp_of_negative_roughly(min(most, fma(factors8, peak, minus_max8))).store_bf16(weights + i);
      }
      ranked.maxima[h * ranked.n_chunks + chunk] = maximum;
      ranked.sums[h * ranked.n_chunks + chunk] = sum(sums);
    }
  }
};

// The second pass for one token and group.
struct Selection {
  const SelectBlocksArgs& args;
  Queries queries;
  CoarseQueries coarse_queries;
  int n_candidates, n_windows;
  int32_t* candidates;  // [n_candidates]
  float* scores;        // of all blocks, then of the candidates
  int32_t* keys;        // scratch of select_best
  int32_t* likely;      // [n_blocks]: blocks that may be candidates, and their scores
  float* likely_scores;
  float* shares;        // [n_heads, n_chunks]: what a chunk's masses count among those of all
  float *others, *peak; // [n_heads]: Σ exp(y − peak) over the windows of the blocks that are no candidates
  // The candidates' windows, ascending, each once.
  const int8_t** rows;
  float *scales, *is_own, *a;
  int32_t *begin, *end;  // [n_candidates]: those of a candidate, with the one that reaches into it
  float* z;              // [n_heads, n_windows]
  int8_t* panel;

  Selection(const SelectBlocksArgs& args, Arrays& arrays) : args(args), queries(args, arrays), coarse_queries(args, arrays) {
    n_candidates = n_select_candidates(args.n_blocks, args.k);
    n_windows = (kReach * n_candidates + kPanel - 1) / kPanel * kPanel;
    candidates = arrays.take<int32_t>(n_candidates);
    scores = arrays.take<float>(args.n_blocks + 16);
    keys = arrays.take<int32_t>(args.n_blocks);
    likely = arrays.take<int32_t>(args.n_blocks);
    likely_scores = arrays.take<float>(args.n_blocks);
    shares = arrays.take<float>(queries.n_heads * n_select_chunks(args.n_blocks));
    others = arrays.take<float>(queries.n_heads);
    peak = arrays.take<float>(queries.n_heads);
    rows = arrays.take<const int8_t*>(n_windows);
    scales = arrays.take<float>(n_windows);
    is_own = arrays.take<float>(n_windows);
    a = arrays.take<float>(n_windows + 1);  // what begins behind the last one is read, too
    begin = arrays.take<int32_t>(n_candidates);
    end = arrays.take<int32_t>(n_candidates);
    z = arrays.take<float>(int64_t{queries.n_heads} * n_windows);
    panel = arrays.take<int8_t>(int64_t{kPanel} * args.head_dim);
  }

  // Fills candidates, others and peak.
  void choose_candidates(const Ranked& ranked, int t, int g) {
    coarse_queries.round(args, t, g);
    const int n_heads = queries.n_heads;
    const int64_t n_chunks = ranked.n_chunks;
    for (int h = 0; h < n_heads; ++h) {
      const float *maxima = ranked.maxima + h * n_chunks, *sums = ranked.sums + h * n_chunks, factor = coarse_queries.factors[h];
      float* share = shares + h * n_chunks;
      float largest = -kInfinity;
      for (int64_t i = 0; i < n_chunks; ++i) largest = maxima[i] > largest ? maxima[i] : largest;
      F32x8 totals = F32x8::zero();
      for (int64_t i = 0; i < n_chunks; i += kLanes) {
        const int n = static_cast<int>(n_chunks - i < kLanes ? n_chunks - i : kLanes);
        const F32x8 of_all = exp(F32x8::set1(factor) * load_part(maxima + i, n) - F32x8::set1(factor * largest));
        store_part(of_all, share + i, n);
        totals = fma(load_part(sums + i, n), of_all, totals);
      }
      const float total = sum(totals);
      for (int64_t i = 0; i < n_chunks; ++i) share[i] = share[i] / total;
      peak[h] = factor * largest;
      others[h] = total;
    }
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
      const int64_t first = chunk * kSelectChunkBlocks, rest = args.n_blocks - first;
      const int64_t end = first + (rest < kSelectChunkBlocks ? rest : kSelectChunkBlocks);
      for (int64_t b = first; b < end; b += kLanes) {
        F32x8 u = F32x8::zero();
        for (int h = 0; h < n_heads; ++h) {
          u = fma(F32x8::load_bf16(ranked.weights + h * ranked.n_rows + b), F32x8::set1(shares[h * n_chunks + chunk]), u);
        }
        u.store(scores + b);
      }
    }
    best_blocks();
    // Candidates' coarse masses are taken off the sum of all; their windows' own, nearly as large, come instead, so what rounding leaves
    // of the difference is small beside the sum.
    float of_candidates[kMaxHeads] = {};
    for (int i = 0; i < n_candidates; ++i) {
      const int64_t b = candidates[i], chunk = b / kSelectChunkBlocks;
      for (int h = 0; h < n_heads; ++h) {
        of_candidates[h] = fma(from_bf16(ranked.masses[h * ranked.n_rows + b]), shares[h * n_chunks + chunk], of_candidates[h]);
      }
    }
    for (int h = 0; h < n_heads; ++h) {
      others[h] = of_candidates[h] < 1 ? others[h] * (1 - of_candidates[h]) : 0;
      peak[h] += coarse_queries.of_mean[h];
    }
  }

  // candidates = those of the largest scores. All that could be among them are taken out of the many first: what is above a bound that
  // some of every seventh block make likely: segments are often eight blocks long, and their first ones are of a kind.
  void best_blocks() {
    constexpr int kSampled = 7;
    const int n = args.n_blocks, n_samples = (n + kSampled - 1) / kSampled, n_best = n_candidates / kSampled * 5 / 4 + 8;
    int n_likely = 0;
    if (n_best < n_samples / 2) {
      for (int i = 0; i < n_samples; ++i) likely_scores[i] = scores[i * kSampled];
      select_best(likely_scores, n_samples, n_best, keys, likely);
      float bound = likely_scores[likely[0]];
      for (int i = 1; i < n_best; ++i) bound = likely_scores[likely[i]] < bound ? likely_scores[likely[i]] : bound;
      for (int b = 0; b < n; ++b) {
        likely[n_likely] = b;
        n_likely += scores[b] >= bound;
      }
      for (int i = 0; i < n_likely; ++i) likely_scores[i] = scores[likely[i]];
    }
    if (n_likely < n_candidates) return select_best(scores, n, n_candidates, keys, candidates);
    select_best(likely_scores, n_likely, n_candidates, keys, candidates);
    for (int i = 0; i < n_candidates; ++i) candidates[i] = likely[candidates[i]];
  }

  // Fills rows, scales, is_own, begin and end; returns the number of windows.
  int list_windows(int g) {
    const BlockWindows* windows = args.windows + int64_t{g} * args.n_blocks;
    int n = 0, before = -2;
    bool before_is_full = false;
    for (int i = 0; i < n_candidates; ++i) {
      const int b = candidates[i];
      const BlockWindows& of = windows[b];
      // Candidates lie anywhere in memory: what tells of them, and then their keys, are on their way before they are needed.
      if (i + 3 * kAhead < n_candidates) __builtin_prefetch(windows + candidates[i + 3 * kAhead]);
      if (i + kAhead < n_candidates) {
        const BlockWindows& ahead = windows[candidates[i + kAhead]];
        __builtin_prefetch(ahead.scales);
        for (int j = -1; j < kBlockSlots; ++j) __builtin_prefetch(ahead.k + int64_t{j} * args.head_dim);
      }
      begin[i] = n;
      if (of.continued && before == b - 1 && before_is_full) {
        begin[i] = n - 1;
      } else if (of.continued) {
        rows[n] = of.k - args.head_dim;
        scales[n] = of.scales[-1];
        is_own[n++] = 0;
      }
      for (int j = 0; j < of.n; ++j) {
        rows[n] = of.k + int64_t{j} * args.head_dim;
        scales[n] = of.scales[j];
        is_own[n++] = 1;
      }
      end[i] = n;
      before = b;
      before_is_full = of.n == kBlockSlots;
    }
    return n;
  }

  // z of the n listed windows; −∞ up to the end of the last panel.
  void meet_windows(int n) {
    const int d = args.head_dim;
    for (int i = n; i % kPanel != 0; ++i) {
      rows[i] = rows[0];
      scales[i] = __builtin_nanf("");
      is_own[i] = 0;
    }
    for (int first = 0; first < n; first += kPanel) {
      for (int r = 0; r < kPanel; r += kLanes) {
        turn_eight_rows([&](int i) { return rows[first + r + i]; }, kLanes, d, reinterpret_cast<int32_t*>(panel) + r, kPanel);
      }
      queries.meet(panel, scales + first, z + first, n_windows);
    }
  }

  void run(const Ranked& ranked, int t, int g, int32_t* selected) {
    queries.round(args, t, g);
    if (n_candidates < args.n_blocks) {
      choose_candidates(ranked, t, g);
    } else {
      for (int i = 0; i < n_candidates; ++i) candidates[i] = i;
      for (int h = 0; h < queries.n_heads; ++h) others[h] = 0;
    }
    const int n = list_windows(g);
    meet_windows(n);
    const int n_filled = (n + kPanel - 1) / kPanel * kPanel;
    for (int i = 0; i < n_filled; i += kLanes) F32x8::zero().store(a + i);
    for (int h = 0; h < queries.n_heads; ++h) {
      float* of_head = z + int64_t{h} * n_windows;
      F32x8 largest = F32x8::set1(-kInfinity);
      for (int i = 0; i < n_filled; i += kLanes) largest = max(F32x8::load(of_head + i), largest);
      const float of_windows = max_lane(largest);
      const float m = others[h] > 0 && peak[h] > of_windows ? peak[h] : of_windows;
      F32x8 sums = F32x8::zero();
      for (int i = 0; i < n_filled; i += kLanes) {
        const F32x8 weight = exp_of_negative(F32x8::load(of_head + i) - F32x8::set1(m));
        weight.store(of_head + i);
        sums = fma(weight, F32x8::load(is_own + i), sums);
      }
      float l = sum(sums);
      if (others[h] > 0) l = fma(others[h], exp(peak[h] - m), l);
      for (int i = 0; i < n_filled; i += kLanes) (F32x8::load(a + i) + F32x8::load(of_head + i) / F32x8::set1(l)).store(a + i);
    }
    for (int i = 0; i < n_candidates; ++i) {
      // As many steps for each: how many windows it has is nothing that a processor could predict.
      float best = 0;
      for (int j = 0; j < kReach; ++j) {
        const float of_window = a[begin[i] + j < end[i] ? begin[i] + j : begin[i]];
        best = of_window > best ? of_window : best;
      }
      scores[i] = begin[i] < end[i] ? best : 0;
    }
    select_best(scores, n_candidates, args.k, keys, selected);
    for (int i = 0; i < args.k && selected[i] >= 0; ++i) selected[i] = candidates[selected[i]];
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
  const bool ranks = n_select_candidates(args.n_blocks, args.k) < args.n_blocks;
  CHECK(!ranks || (args.coarse.coarse_dim % kLanes == 0 && args.coarse.coarse_dim > 0));
  const int n_sections = static_cast<int>((n_select_chunks(args.n_blocks) + kSelectSectionChunks - 1) / kSelectSectionChunks);
  for (int first = 0; first < args.n_tokens; first += kSelectTokens) {
    const int n_tokens = args.n_tokens - first < kSelectTokens ? args.n_tokens - first : kSelectTokens;
    // Neighbouring tasks meet the same keys, or have the same queries.
    stream.parallel_for(ranks ? n_sections * args.n_kv_heads * n_tokens : 0, 1, [&](int first_task, int last_task) {
      Ranking ranking = with_scratch<Ranking>(args);
      for (int task = first_task; task < last_task; ++task) {
        const int t = task % n_tokens, s = task / n_tokens % n_sections, g = task / n_tokens / n_sections;
        ranking.run(first + t, g, s, Ranked(args, t, g));
      }
    });
    stream.parallel_for(n_tokens * args.n_kv_heads, 1, [&](int first_task, int last_task) {
      Selection selection = with_scratch<Selection>(args);
      for (int task = first_task; task < last_task; ++task) {
        const int t = task / args.n_kv_heads, g = task % args.n_kv_heads;
        selection.run(Ranked(args, t, g), first + t, g, args.selected + (int64_t{first + t} * args.n_kv_heads + g) * args.k);
      }
    });
  }
}

}  // namespace sala::SALA_ISA
