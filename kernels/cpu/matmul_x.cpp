// Matrix products with fp32 activations: a tile of a panel is turned into fp32 in L1 and met by all tokens. Per output one
// chain of FMAs over 256 columns, and the chains are added in ascending order: the rounding error grows with 256, not with
// in_features, and no result depends on the tokens beside it.
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kChainColumns = 256;  // part of the numerics; 16 KB of weights, half of the smallest L1
constexpr int kTile = 6;            // tokens: 12 sums, 2 weights and 1 activation of 16 registers

// Four columns of an int8 panel, or one half of eight columns of an int4 panel shifted to the low nibbles, as fp32 [4, 16].
template <class Value>
inline void four_columns(const uint8_t* four, const float* scales, Value value, float* to) {
  for (int b = 0; b < 4; ++b) {
    for (int r = 0; r < kPanelRows; ++r) {
      uint32_t word;
      std::memcpy(&word, four + 4 * r, 4);
      to[b * kPanelRows + r] = scales[r] * static_cast<float>(value(word >> (8 * b), r));
    }
  }
}

// Columns k … k + n of panel p as fp32 [n, 16]; k a multiple of 8. Returns where they are: `tile` or the matrix itself.
const float* dequantize(const Matrix& w, int p, int k, int n, float* tile) {
  const int64_t columns = (static_cast<int64_t>(w.in_features) + 7) / 8 * 8;
  const int64_t dense = (p * columns + k) * kPanelRows;  // index of the first value
  switch (w.form) {
    case MatrixForm::f32: return reinterpret_cast<const float*>(w.values.data()) + dense;
    case MatrixForm::f16:
    case MatrixForm::bf16: {
      const uint16_t* from = reinterpret_cast<const uint16_t*>(w.values.data()) + dense;
      for (int i = 0; i < n * kPanelRows; i += kLanes) {
        (w.form == MatrixForm::f16 ? F32x8::load_f16(from + i) : F32x8::load_bf16(from + i)).store(tile + i);
      }
      break;
    }
    case MatrixForm::int8:
      for (int i = 0; i < n; i += 4) {
        four_columns(w.values.data() + dense + i * kPanelRows, w.scales.data() + static_cast<int64_t>(p) * kPanelRows,
                     [](uint32_t word, int) { return static_cast<int8_t>(word); }, tile + i * kPanelRows);
      }
      break;
    case MatrixForm::int4:
      for (int i = 0; i < n; i += 8) {
        const uint8_t* from = w.values.data() + (dense + i * kPanelRows) / 2;
        const int64_t group = (static_cast<int64_t>(p) * w.n_groups() + (k + i) / w.group_size) * kPanelRows;
        int32_t zeros[kPanelRows];
        for (int r = 0; r < kPanelRows; ++r) zeros[r] = w.zeros.empty() ? 8 : w.zeros[group + r];
        const float* scales = w.scales.data() + group;
        four_columns(from, scales, [&](uint32_t word, int r) { return static_cast<int32_t>(word & 15) - zeros[r]; },
                     tile + i * kPanelRows);
        four_columns(from, scales, [&](uint32_t word, int r) { return static_cast<int32_t>(word >> 4 & 15) - zeros[r]; },
                     tile + (i + 4) * kPanelRows);
      }
      break;
  }
  return tile;
}

// acc[t] += Σ weights[k] · x[t][column of k], for n columns. x: the first token's row from the first column on, or, with
// `order`, the whole row, order[k] being the column.
template <int Tokens, bool Ordered>
void add_chain(const float* weights, const float* x, int64_t x_stride, const int32_t* order, int n, float* acc) {
  F32x8 sum[Tokens][2] = {};
  for (int k = 0; k < n; ++k, weights += kPanelRows) {
    const F32x8 low = F32x8::load(weights), high = F32x8::load(weights + kLanes);
    const float* column = x + (Ordered ? order[k] : k);
#pragma GCC unroll 6
    for (int t = 0; t < Tokens; ++t) {
      const F32x8 value = F32x8::set1(column[t * x_stride]);
      sum[t][0] = fma(low, value, sum[t][0]);
      sum[t][1] = fma(high, value, sum[t][1]);
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < Tokens; ++t, acc += kPanelRows) {
    (F32x8::load(acc) + sum[t][0]).store(acc);
    (F32x8::load(acc + kLanes) + sum[t][1]).store(acc + kLanes);
  }
}

void panels(const MatmulArgs& args, int begin, int end) {
  const Matrix& w = *args.weight;
  const int32_t* order = w.column_order.empty() ? nullptr : w.column_order.data();
  constexpr int kTileSize = kChainColumns * kPanelRows;
  float* tile = static_cast<float*>(Stream::scratch(sizeof(float) * (kTileSize + kTokenBlock * kPanelRows)));
  float* acc = tile + kTileSize;
  for (int first = 0; first < args.n_tokens; first += kTokenBlock) {
    const int n_tokens = smaller(kTokenBlock, args.n_tokens - first);
    for (int p = begin; p < end; ++p) {
      std::memset(acc, 0, sizeof(float) * n_tokens * kPanelRows);
      for (int k = 0; k < w.in_features; k += kChainColumns) {
        const int n = smaller(kChainColumns, w.in_features - k);
        const float* weights = dequantize(w, p, k, n, tile);
        for_token_tiles<kTile>(n_tokens, [&](auto tokens, int t) {
          const float* x = args.x + static_cast<int64_t>(first + t) * w.in_features;
          float* sums = acc + t * kPanelRows;
          if (order) add_chain<tokens.value, true>(weights, x, w.in_features, order + k, n, sums);
          else add_chain<tokens.value, false>(weights, x + k, w.in_features, nullptr, n, sums);
        });
      }
      store_panel(args, p, first, n_tokens, acc);
    }
  }
}

}  // namespace

void matmul_x(const MatmulArgs& args, Stream& stream) {
  stream.parallel_for(args.weight->n_panels(), 1, [&](int begin, int end) { panels(args, begin, end); });
}

}  // namespace sala::SALA_ISA
