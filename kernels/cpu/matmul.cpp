#include "kernels/cpu/matmul.h"

#include "kernels/cpu/rows.h"

namespace sala::SALA_ISA {

namespace {

void panels(const MatmulArgs& args, int begin, int end) {
  if (args.q) panels_q(args, begin, end);
  else SALA_SHARED_ISA::panels_x(args, begin, end);
}

}  // namespace

void matmul(const MatmulArgs& args, Stream& stream) {
  int n_panels = 0;
  for (const MatmulArgs* product = &args; product; product = product->next) {
    if (product->n_tokens == 0) continue;
    reference::check_matmul(*product);
    n_panels += product->weight->n_panels();
  }
  // The panels of all products are counted through, so that threads wait for each other once.
  stream.parallel_for(n_panels, 1, [&](int begin, int end) {
    int first = 0;
    for (const MatmulArgs* product = &args; product && first < end; product = product->next) {
      if (product->n_tokens == 0) continue;
      const int n = product->weight->n_panels();
      const int from = begin > first ? begin - first : 0, to = smaller(end - first, n);
      first += n;
      if (from >= to) continue;
      panels(*product, from, to);
    }
  });
}

// A piece is the columns that share a scale, of both products and all tokens. Where only 8-bit rows are wanted, its values lie together:
// in columns of a wide matrix every row would be on a page of its own, and in the same few sets of the cache.
void swiglu_matmul(const SwigluMatmulArgs& args, Stream& stream) {
  reference::check_swiglu_matmul(args);
  if (args.gate->n_tokens == 0) return;
  reference::check_matmul(*args.gate);
  reference::check_matmul(*args.up);
  const int n_tokens = args.gate->n_tokens, n_columns = args.gate->weight->out_features, n_panels = args.gate->weight->n_panels();
  const bool rounds = args.rows8.group_size > 0;
  const int group_size = rounds ? args.rows8.group_size : kPanelRows, panels_per_group = group_size / kPanelRows;
  stream.parallel_for((n_panels + panels_per_group - 1) / panels_per_group, 1, [&](int begin, int end) {
    MatmulArgs gate = *args.gate, up = *args.up;
    for (int g = begin; g < end; ++g) {
      const int from = g * panels_per_group, to = smaller(from + panels_per_group, n_panels);
      const int first = from * kPanelRows, n = smaller(to * kPanelRows, n_columns) - first;
      if (rounds) {
        const int64_t shift = int64_t{first} * (n_tokens - 1);  // [group, token, column of the group]
        gate.out = args.gate->out + shift;
        up.out = args.up->out + shift;
        gate.out_stride = up.out_stride = group_size;
      }
      panels(gate, from, to);
      panels(up, from, to);
      for (int64_t t = 0; t < n_tokens; ++t) {
        float* out = gate.out + t * gate.out_stride + first;
        swiglu_row(out, up.out + t * up.out_stride + first, n);
        if (rounds) quantize_group(out, t, n_columns, g, args.rows8);
      }
    }
  });
}

}  // namespace sala::SALA_ISA
