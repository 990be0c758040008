// Matrix products with 8-bit activations: an exact integer dot product per group, then one FMA per group in ascending
// order, in every path below. So a row has the same bits whether it comes alone (nibbles unpacked on the way, bound by
// memory) or among many (a panel unpacked once to bytes in L1 and met by all tokens).
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kFewTokens = 12;  // unpack nibbles on the way: storing the bytes of a panel costs as much as some tiles
constexpr int kUnpackedColumns = 1024;  // of a panel at once: 16 KB, half of the smallest L1

// acc[t] = fma(dots[t], w_scales * q_scale of t, acc[t]).
template <int Tokens>
inline void add_group(const int32_t* dots, const float* w_scales, const float* q_scales, int64_t q_stride, float* acc) {
  const F32x16 weights = F32x16::load(w_scales);
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t, dots += kPanelRows, acc += kPanelRows) {
    const F32x16 scale = F32x16::set1(q_scales[t * q_stride]);
    fma(I32x16::load(dots).to_f32(), weights * scale, F32x16::load(acc)).store(acc);
  }
}

// Start values of the dot products: −zero · Σ q, with zeros [16], or 8 everywhere where null.
template <int Tokens>
inline void start_dots(const uint8_t* zeros, const int32_t* q_sums, int64_t q_stride, int32_t* dots) {
  const I32x16 minus_zero = zeros ? I32x16::load_u8(zeros) * I32x16::set1(-1) : I32x16::set1(-8);
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t, dots += kPanelRows) {
    (minus_zero * I32x16::set1(q_sums[t * q_stride])).store(dots);
  }
}

// What the inner loops read of an int4 product. They copy it: the assembly may write any memory, as far as the compiler
// knows, and would have the fields of MatmulArgs and Matrix read again for each group.
struct Int4Product {
  const uint8_t* values;
  const float* scales;
  const uint8_t* zeros;  // null: 8
  const int8_t* q;
  const float* q_scales;
  const int32_t* q_sums;
  int64_t in_features, n_groups, group_size;

  explicit Int4Product(const MatmulArgs& args)
      : values(args.weight->values.data()),
        scales(args.weight->scales.data()),
        zeros(args.weight->zeros.empty() ? nullptr : args.weight->zeros.data()),
        q(args.q),
        q_scales(args.q_scales),
        q_sums(args.q_sums),
        in_features(args.weight->in_features),
        n_groups(args.weight->n_groups()),
        group_size(args.weight->group_size) {}

  const uint8_t* panel(int64_t p) const { return values + p * in_features * (kPanelRows / 2); }
};

// Groups g … g + n_groups of panel p for the tokens from `token` on, added to acc. `weights`: the panel from group g
// on, as nibbles or as unpacked bytes.
template <int Tokens, bool Nibbles>
inline void add_int4(const Int4Product& m, int64_t p, int64_t token, int64_t g, int64_t n_groups,
                     const uint8_t* weights, float* acc) {
  const int64_t panel_group = (p * m.n_groups + g) * kPanelRows, token_group = token * m.n_groups + g;
  const int8_t* q = m.q + token * m.in_features + g * m.group_size;
  const int64_t group_bytes = m.group_size * (Nibbles ? kPanelRows / 2 : kPanelRows);
  alignas(64) int32_t dots[Tokens * kPanelRows];
  for (int64_t i = 0; i < n_groups; ++i) {
    const int64_t at = panel_group + i * kPanelRows;
    start_dots<Tokens>(m.zeros ? m.zeros + at : nullptr, m.q_sums + token_group + i, m.n_groups, dots);
    if constexpr (Nibbles) dot_nibbles<Tokens>(weights, q, m.in_features, m.group_size, dots);
    else dot_bytes<Tokens>(weights, q, m.in_features, m.group_size, dots);
    add_group<Tokens>(dots, m.scales + at, m.q_scales + token_group + i, m.n_groups, acc);
    weights += group_bytes;
    q += m.group_size;
  }
}

// The two forms for a fixed number of tokens are not inlined: together they would share, and spill, the same registers.
template <int Tokens>
__attribute__((noinline)) void few_tokens_int4(const MatmulArgs& args, int token, int begin, int end) {
  const Int4Product m(args);
  for (int p = begin; p < end; ++p) {
    alignas(64) float acc[Tokens * kPanelRows] = {};
    add_int4<Tokens, true>(m, p, token, 0, m.n_groups, m.panel(p), acc);
    store_panel(args, p, token, Tokens, acc);
  }
}

template <int Tokens>
__attribute__((noinline)) void unpacked_int4(const Int4Product& product, int p, int token, int g, int n_groups,
                                             const uint8_t* bytes, float* acc) {
  const Int4Product m = product;
  add_int4<Tokens, false>(m, p, token, g, n_groups, bytes, acc);
}

void many_tokens_int4(const MatmulArgs& args, int begin, int end) {
  const Int4Product m(args);
  const int n_groups = static_cast<int>(m.n_groups);
  const int group_size = args.weight->group_size;
  const int block_groups = group_size < kUnpackedColumns ? kUnpackedColumns / group_size : 1;
  const int64_t bytes_size = (static_cast<int64_t>(block_groups) * group_size * kPanelRows + 63) / 64 * 64;
  uint8_t* bytes = static_cast<uint8_t*>(Stream::scratch(bytes_size + sizeof(float) * kTokenBlock * kPanelRows));
  float* acc = reinterpret_cast<float*>(bytes + bytes_size);
  for (int first = 0; first < args.n_tokens; first += kTokenBlock) {
    const int n_tokens = smaller(kTokenBlock, args.n_tokens - first);
    for (int p = begin; p < end; ++p) {
      std::memset(acc, 0, sizeof(float) * n_tokens * kPanelRows);
      for (int g = 0; g < n_groups; g += block_groups) {
        const int n = smaller(block_groups, n_groups - g);
        unpack_nibbles(m.panel(p) + g * m.group_size * (kPanelRows / 2), n * group_size, bytes);
        for_token_tiles<kTokenTile>(n_tokens, [&](auto tokens, int t) {
          unpacked_int4<tokens.value>(m, p, first + t, g, n, bytes, acc + t * kPanelRows);
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
            const int8_t* row = q + static_cast<int64_t>(t) * w.in_features;
            std::memcpy(copy + t * copy_stride + before, row + first, group_size);
          }
          dot_int8<tokens.value>(weights, copy, copy_stride, (before + group_size + 3) / 4 * 4, dots);
        }
        const float* q_scales = args.q_scales + static_cast<int64_t>(token) * n_groups + g;
        add_group<tokens.value>(dots, w_scales, q_scales, n_groups, acc);
      }
      store_panel(args, p, token, tokens.value, acc);
    });
  }
}

}  // namespace

void panels_q(const MatmulArgs& args, int begin, int end) {
  if (args.weight->form == MatrixForm::int8) {
    panels_int8(args, begin, end);
  } else if (args.n_tokens > kFewTokens) {
    many_tokens_int4(args, begin, end);
  } else {
    // A panel comes from memory once and meets all tokens.
    const int step = args.n_tokens > kSmallTokenTile ? 1 : end - begin;
    for (int p = begin; p < end; p += step) {
      for_token_tiles<kSmallTokenTile>(args.n_tokens, [&](auto tokens, int t) {
        few_tokens_int4<tokens.value>(args, t, p, p + step);
      });
    }
  }
}

}  // namespace sala::SALA_ISA
