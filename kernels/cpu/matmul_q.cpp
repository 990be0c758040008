// Matrix products with 8-bit activations: an exact integer dot product per group, then one FMA per group in ascending order,
// in every path below. So a row has the same bits whether it comes alone (nibbles unpacked on the way, bound by memory) or
// among many (a panel unpacked once to bytes in L1 and met by all tokens).
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kUnpackedColumns = 1024;  // of a panel at once: 16 KB, half of the smallest L1

// acc[t] = fma(dots[t], w_scales * q_scale of t, acc[t]).
template <int Tokens>
void add_group(const int32_t* dots, const float* w_scales, const float* q_scales, int64_t q_stride, float* acc) {
  const F32x8 low = F32x8::load(w_scales), high = F32x8::load(w_scales + kLanes);
#pragma GCC unroll 6
  for (int t = 0; t < Tokens; ++t, dots += kPanelRows, acc += kPanelRows) {
    const F32x8 scale = F32x8::set1(q_scales[t * q_stride]);
    fma(load_i32(dots), low * scale, F32x8::load(acc)).store(acc);
    fma(load_i32(dots + kLanes), high * scale, F32x8::load(acc + kLanes)).store(acc + kLanes);
  }
}

// Start values of the dot products: −zero · Σ q.
template <int Tokens>
void start_dots(const uint8_t* zeros, const int32_t* q_sums, int64_t q_stride, int32_t* dots) {
#pragma GCC unroll 6
  for (int t = 0; t < Tokens; ++t, dots += kPanelRows) {
    const int32_t sum = q_sums[t * q_stride];
    if (zeros) {
      for (int r = 0; r < kPanelRows; ++r) dots[r] = -zeros[r] * sum;
    } else {
      for (int r = 0; r < kPanelRows; ++r) dots[r] = -8 * sum;
    }
  }
}

// Groups g … g + n_groups of int4 panel p for the tokens from `token` on, added to acc. `weights`: the panel from group g on,
// as nibbles or as unpacked bytes.
template <int Tokens, bool Nibbles>
void add_int4(const MatmulArgs& args, int p, int token, int g, int n_groups, const uint8_t* weights, float* acc) {
  const Matrix& w = *args.weight;
  const int64_t q_stride = w.n_groups();
  const int64_t panel_group = (p * q_stride + g) * kPanelRows, token_group = token * q_stride + g;
  const float* w_scales = w.scales.data() + panel_group;
  const uint8_t* zeros = w.zeros.empty() ? nullptr : w.zeros.data() + panel_group;
  const float* q_scales = args.q_scales + token_group;
  const int32_t* q_sums = args.q_sums + token_group;
  const int8_t* q = args.q + static_cast<int64_t>(token) * w.in_features + static_cast<int64_t>(g) * w.group_size;
  alignas(64) int32_t dots[Tokens * kPanelRows];
  for (int i = 0; i < n_groups; ++i) {
    start_dots<Tokens>(zeros, q_sums + i, q_stride, dots);
    if constexpr (Nibbles) dot_nibbles<Tokens>(weights, q, w.in_features, w.group_size, dots);
    else dot_bytes<Tokens>(weights, q, w.in_features, w.group_size, dots);
    add_group<Tokens>(dots, w_scales, q_scales + i, q_stride, acc);
    weights += w.group_size * (Nibbles ? kPanelRows / 2 : kPanelRows);
    q += w.group_size;
    w_scales += kPanelRows;
    if (zeros) zeros += kPanelRows;
  }
}

const uint8_t* int4_panel(const Matrix& w, int p) {
  return w.values.data() + static_cast<int64_t>(p) * w.in_features * (kPanelRows / 2);
}

void few_tokens_int4(const MatmulArgs& args, int begin, int end) {
  const Matrix& w = *args.weight;
  for (int p = begin; p < end; ++p) {
    for_token_tiles<kSmallTokenTile>(args.n_tokens, [&](auto tokens, int t) {
      alignas(64) float acc[tokens.value * kPanelRows] = {};
      add_int4<tokens.value, true>(args, p, t, 0, w.n_groups(), int4_panel(w, p), acc);
      store_panel(args, p, t, tokens.value, acc);
    });
  }
}

void many_tokens_int4(const MatmulArgs& args, int begin, int end) {
  const Matrix& w = *args.weight;
  const int block_groups = w.group_size < kUnpackedColumns ? kUnpackedColumns / w.group_size : 1;
  const int64_t bytes_size = (static_cast<int64_t>(block_groups) * w.group_size * kPanelRows + 63) / 64 * 64;
  uint8_t* bytes = static_cast<uint8_t*>(Stream::scratch(bytes_size + sizeof(float) * kTokenBlock * kPanelRows));
  float* acc = reinterpret_cast<float*>(bytes + bytes_size);
  for (int first = 0; first < args.n_tokens; first += kTokenBlock) {
    const int n_tokens = smaller(kTokenBlock, args.n_tokens - first);
    for (int p = begin; p < end; ++p) {
      std::memset(acc, 0, sizeof(float) * n_tokens * kPanelRows);
      for (int g = 0; g < w.n_groups(); g += block_groups) {
        const int n_groups = smaller(block_groups, w.n_groups() - g);
        const int64_t first_column = static_cast<int64_t>(g) * w.group_size;
        unpack_nibbles(int4_panel(w, p) + first_column * (kPanelRows / 2), n_groups * w.group_size, bytes);
        for_token_tiles<kTokenTile>(n_tokens, [&](auto tokens, int t) {
          add_int4<tokens.value, false>(args, p, first + t, g, n_groups, bytes, acc + t * kPanelRows);
        });
      }
      store_panel(args, p, first, n_tokens, acc);
    }
  }
}

void panels_int8(const MatmulArgs& args, int begin, int end) {
  const Matrix& w = *args.weight;
  const int group_size = args.q_group_size, n_groups = w.in_features / group_size;
  const int64_t panel_bytes = (static_cast<int64_t>(w.in_features) + 7) / 8 * 8 * kPanelRows;
  // A panel holds four columns together. Where groups do not end on such a border, a group's activations are copied to
  // whole fours with zeros around them.
  const bool whole_fours = group_size % 4 == 0;
  const int64_t copy_stride = group_size + 8;
  int8_t* copy = whole_fours ? nullptr : static_cast<int8_t*>(Stream::scratch(copy_stride * kSmallTokenTile));
  for (int p = begin; p < end; ++p) {
    const uint8_t* panel = w.values.data() + p * panel_bytes;
    const float* w_scales = w.scales.data() + static_cast<int64_t>(p) * kPanelRows;
    for_token_tiles<kSmallTokenTile>(args.n_tokens, [&](auto tokens, int token) {
      alignas(64) float acc[tokens.value * kPanelRows] = {};
      const int8_t* q = args.q + static_cast<int64_t>(token) * w.in_features;
      for (int g = 0; g < n_groups; ++g) {
        alignas(64) int32_t dots[tokens.value * kPanelRows] = {};
        const int first = g * group_size, before = first % 4;
        const uint8_t* weights = panel + static_cast<int64_t>(first - before) * kPanelRows;
        if (whole_fours) {
          dot_int8<tokens.value>(weights, q + first, w.in_features, group_size, dots);
        } else {
          std::memset(copy, 0, copy_stride * tokens.value);
          for (int t = 0; t < tokens.value; ++t) {
            std::memcpy(copy + t * copy_stride + before, q + static_cast<int64_t>(t) * w.in_features + first, group_size);
          }
          dot_int8<tokens.value>(weights, copy, copy_stride, (before + group_size + 3) / 4 * 4, dots);
        }
        add_group<tokens.value>(dots, w_scales, args.q_scales + static_cast<int64_t>(token) * n_groups + g, n_groups, acc);
      }
      store_panel(args, p, token, tokens.value, acc);
    });
  }
}

}  // namespace

void matmul_q(const MatmulArgs& args, Stream& stream) {
  stream.parallel_for(args.weight->n_panels(), 1, [&](int begin, int end) {
    if (args.weight->form == MatrixForm::int8) panels_int8(args, begin, end);
    else if (args.n_tokens <= kSmallTokenTile) few_tokens_int4(args, begin, end);
    else many_tokens_int4(args, begin, end);
  });
}

}  // namespace sala::SALA_ISA
