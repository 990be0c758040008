// Matrix products with fp32 activations: a tile of a panel is turned into fp32 in L1 and met by all tokens. Per output
// one chain of FMAs over 256 columns, and the chains are added in ascending order: the rounding error grows with 256,
// not with in_features, and no result depends on the tokens beside it.
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kChainColumns = 256;  // part of the numerics; 16 KB of weights, half of the smallest L1
constexpr int kTile = 6;            // tokens: 12 sums, 2 weights and 1 activation of 16 registers

// Rows 8·half … 8·half + 7 of eight columns of an int4 panel as fp32, to [8, 16]. from: 64 bytes; zeros [16] or null:
// 8.
inline void eight_columns_int4(const uint8_t* from, const float* scales, const uint8_t* zeros, int half, float* to) {
  const I32x8 words = I32x8::load(from + 32 * half);
  const F32x8 scale = F32x8::load(scales + kLanes * half);
  const I32x8 zero = zeros ? I32x8::load_u8(zeros + kLanes * half) : I32x8::set1(8);
  const auto column = [&](int k, I32x8 code) {
    (scale * (code - zero).to_f32()).store(to + k * kPanelRows + kLanes * half);
  };
  column(0, field<0, 4>(words));
  column(1, field<8, 4>(words));
  column(2, field<16, 4>(words));
  column(3, field<24, 4>(words));
  column(4, field<4, 4>(words));
  column(5, field<12, 4>(words));
  column(6, field<20, 4>(words));
  column(7, field<28, 4>(words));
}

// The same for four columns of an int8 panel, to [4, 16].
inline void four_columns_int8(const uint8_t* from, const float* scales, int half, float* to) {
  const I32x8 words = I32x8::load(from + 32 * half);
  const F32x8 scale = F32x8::load(scales + kLanes * half);
  const auto column = [&](int k, I32x8 code) { (scale * code.to_f32()).store(to + k * kPanelRows + kLanes * half); };
  column(0, signed_field<0, 8>(words));
  column(1, signed_field<8, 8>(words));
  column(2, signed_field<16, 8>(words));
  column(3, signed_field<24, 8>(words));
}

// Columns k … k + n of panel p as fp32 [n, 16]; k a multiple of 8. Returns where they are: `tile` or the matrix itself.
const float* dequantize(const Matrix& w, int p, int k, int n, float* tile) {
  const int64_t columns = (static_cast<int64_t>(w.in_features) + 7) / 8 * 8;
  const int64_t first = (p * columns + k) * kPanelRows;  // index of the first value
  switch (w.form) {
    case MatrixForm::f32: return reinterpret_cast<const float*>(w.values.data()) + first;
    case MatrixForm::f16:
    case MatrixForm::bf16: {
      const uint16_t* from = reinterpret_cast<const uint16_t*>(w.values.data()) + first;
      for (int i = 0; i < n * kPanelRows; i += kLanes) {
        (w.form == MatrixForm::f16 ? F32x8::load_f16(from + i) : F32x8::load_bf16(from + i)).store(tile + i);
      }
      break;
    }
    case MatrixForm::int8: {
      const float* scales = w.scales.data() + static_cast<int64_t>(p) * kPanelRows;
      for (int i = 0; i < n; i += 4) {
        const uint8_t* from = w.values.data() + first + i * kPanelRows;
        for (int half = 0; half < 2; ++half) four_columns_int8(from, scales, half, tile + i * kPanelRows);
      }
      break;
    }
    case MatrixForm::int4:
      for (int i = 0; i < n; i += 8) {
        const uint8_t* from = w.values.data() + (first + i * kPanelRows) / 2;
        const int64_t group = (static_cast<int64_t>(p) * w.n_groups() + (k + i) / w.group_size) * kPanelRows;
        const uint8_t* zeros = w.zeros.empty() ? nullptr : w.zeros.data() + group;
        const float* scales = w.scales.data() + group;
        for (int half = 0; half < 2; ++half) eight_columns_int4(from, scales, zeros, half, tile + i * kPanelRows);
      }
      break;
  }
  return tile;
}

// acc[t] += Σ weights[k] · x[t][column of k], for n columns. x: the first token's row from the first column on, or,
// with `order`, the whole row, order[k] being the column.
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

}  // namespace

void panels_x(const MatmulArgs& args, int begin, int end) {
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

}  // namespace sala::SALA_ISA
