// cos, sin and the power are our own, in double from + − × / and fma alone, so that every machine gets the same bits;
// their errors of some 1e-16 vanish in the rounding to fp32.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

// Adding and subtracting 1.5 · 2^52 rounds to the nearest integer.
double round_to_integer(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

// base^exponent for base > 0 and results well within the range of double: exp(exponent · ln base).
double power(double base, double exponent) {
  // base = m · 2^e with m in [√½, √2), ln m = 2 artanh((m − 1) / (m + 1)).
  uint64_t bits;
  std::memcpy(&bits, &base, 8);
  int e = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
  double m;
  std::memcpy(&m, &bits, 8);
  if (m > 0x1.6a09e667f3bcdp0) {
    m *= 0.5;
    e += 1;
  }
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double series = 0;  // s ≤ 0.172: terms up to s^25 reach 2^-60
  for (int k = 25; k >= 3; k -= 2) series = fma(series, s2, 1.0 / k);
  constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  const double log_high = e * kLn2High;  // exact: kLn2High has 42 bits
  const double log_low = fma(2 * s, series * s2, e * kLn2Low) + 2 * s;

  // exponent · ln base = n · ln 2 + r.
  const double n = round_to_integer(exponent * (log_high + log_low) * 0x1.71547652b82fep0);
  const double r = fma(exponent, log_low, fma(-n, kLn2Low, fma(exponent, log_high, -n * kLn2High)));
  double p = 1;  // Taylor: |r| ≤ 0.35, r^16 / 16! < 2^-68
  for (int k = 15; k >= 1; --k) p = fma(p * (1.0 / k), r, 1);
  const uint64_t scale_bits = static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52;
  double scale;
  std::memcpy(&scale, &scale_bits, 8);
  return p * scale;
}

// For 0 ≤ x < 2^22. x = k · π/2 + r, π/2 as a sum of two doubles: with fma each step rounds relative to its own result,
// so r is good to 2^-52 of itself. Polynomials on |r| ≤ π/4: fdlibm's __kernel_sin and __kernel_cos (Sun Microsystems
// 1993).
void sin_cos(double x, double& sin, double& cos) {
  const double k = round_to_integer(x * 0x1.45f306dc9c883p-1);
  const double r = fma(-k, 0x1.1a62633145c07p-54, fma(-k, 0x1.921fb54442d18p0, x));
  const double z = r * r;
  double s = 1.58969099521155010221e-10;
  s = fma(s, z, -2.50507602534068634195e-08);
  s = fma(s, z, 2.75573137070700676789e-06);
  s = fma(s, z, -1.98412698298579493134e-04);
  s = fma(s, z, 8.33333333332248946124e-03);
  s = fma(s, z, -1.66666666666666324348e-01);
  s = fma(s * z, r, r);
  double c = -1.13596475577881948265e-11;
  c = fma(c, z, 2.08757232129817482790e-09);
  c = fma(c, z, -2.75573143513906633035e-07);
  c = fma(c, z, 2.48015872894767294178e-05);
  c = fma(c, z, -1.38888888888741095749e-03);
  c = fma(c, z, 4.16666666666666019037e-02);
  c = fma(z * z, c, fma(z, -0.5, 1));
  switch (static_cast<int64_t>(k) & 3) {
    case 0: sin = s, cos = c; break;
    case 1: sin = c, cos = -s; break;
    case 2: sin = -s, cos = -c; break;
    default: sin = -c, cos = s; break;
  }
}

}  // namespace

void rope_table(const RopeTableArgs& args, Stream& stream) {
  const int half = args.head_dim / 2;
  CHECK(args.first_position >= 0 && args.first_position + args.n_tokens <= (1 << 22) && args.head_dim <= 1024);
  CHECK(args.theta >= 1);
  float frequencies[512];
  for (int p = 0; p < half; ++p) {
    const float exponent = static_cast<float>(2 * p) / static_cast<float>(args.head_dim);
    frequencies[p] = 1.0f / static_cast<float>(power(args.theta, exponent));
  }
  stream.parallel_for(args.n_tokens, 16, [&](int first_token, int last_token) {
    for (int t = first_token; t < last_token; ++t) {
      for (int p = 0; p < half; ++p) {
        const float angle = static_cast<float>(args.first_position + t) * frequencies[p];
        double sin, cos;
        sin_cos(angle, sin, cos);
        args.cos[int64_t{t} * half + p] = static_cast<float>(cos);
        args.sin[int64_t{t} * half + p] = static_cast<float>(sin);
      }
    }
  });
}

void rope(const RopeArgs& args, Stream& stream) {
  const int half = args.head_dim / 2;
  stream.parallel_for(args.n_tokens, 4, [&](int first_token, int last_token) {
    for (int t = first_token; t < last_token; ++t) {
      for (int h = 0; h < args.n_heads; ++h) {
        float* x = args.x + (int64_t{t} * args.n_heads + h) * args.head_dim;
        rotate_head(x, args.cos + int64_t{t} * half, args.sin + int64_t{t} * half, half);
      }
    }
  });
}

}  // namespace sala::SALA_ISA
