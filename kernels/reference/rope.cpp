#include <cmath>

#include "kernels/reference/reference.h"

namespace sala::reference {

void rope_table(const RopeTableArgs& args, Stream&) {
  const int half = args.head_dim / 2;
  for (int p = 0; p < half; ++p) {
    // As PyTorch computes it in fp32: exponent, power and quotient are rounded one after the other.
    const float exponent = static_cast<float>(2 * p) / static_cast<float>(args.head_dim);
    const float power = static_cast<float>(std::pow(double{args.theta}, double{exponent}));
    const float frequency = 1.0f / power;
    for (int t = 0; t < args.n_tokens; ++t) {
      const float angle = static_cast<float>(args.first_position + t) * frequency;
      args.cos[int64_t{t} * half + p] = static_cast<float>(std::cos(double{angle}));
      args.sin[int64_t{t} * half + p] = static_cast<float>(std::sin(double{angle}));
    }
  }
}

void rope(const RopeArgs& args, Stream&) {
  const int half = args.head_dim / 2;
  for (int t = 0; t < args.n_tokens; ++t) {
    const float* cos = args.cos + int64_t{t} * half;
    const float* sin = args.sin + int64_t{t} * half;
    for (int h = 0; h < args.n_heads; ++h) {
      float* x = args.x + (int64_t{t} * args.n_heads + h) * args.head_dim;
      for (int c = 0; c < half; ++c) {
        const double low = x[c], high = x[c + half];
        x[c] = static_cast<float>(low * cos[c] - high * sin[c]);
        x[c + half] = static_cast<float>(high * cos[c] + low * sin[c]);
      }
    }
  }
}

}  // namespace sala::reference
