// Speed of the matrix products on one thread, in CPU time: sala-coder-0.5b's shapes, the backend that KERNEL_BACKEND
// names (else the best). A row is printed only after its result has been compared with the reference table.
//
//   bench_kernels               all rows
//   bench_kernels NAME…         these rows; "peaks" for the two last ones
//   bench_kernels --once NAME   one call, nothing checked or timed, to count instructions:
//     valgrind --tool=callgrind --toggle-collect='sala::avx2::matmul(*' bench_kernels --once gemm_up
//   instructions.mjs does that, and holds the counts to limits.
// Two rows are the machine's own limits: peak_int8, multiply-adds of 8-bit integers from registers, and peak_read, one
// thread reading memory.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace sala {
namespace {

struct Product {
  const char* name;
  MatrixForm form;
  bool fp32_activations;
  int n_tokens, out_features, in_features;
};

constexpr int kGroupSize = 128;
constexpr int kRounds = 15;
constexpr double kRoundSeconds = 0.05;

constexpr Product kProducts[] = {
    {"gemm_up", MatrixForm::int4, false, 512, 4864, 896},
    {"gemm_down", MatrixForm::int4, false, 512, 896, 4864},
    {"gemv_up", MatrixForm::int4, false, 1, 4864, 896},
    {"gemv_down", MatrixForm::int4, false, 1, 896, 4864},
    {"verify_up", MatrixForm::int4, false, 4, 4864, 896},
    {"gemv_head", MatrixForm::int8, false, 1, 32768, 896},
    {"gemm_head", MatrixForm::int8, false, 64, 32768, 896},
    {"fp32_gemm_up", MatrixForm::int4, true, 512, 4864, 896},
    {"fp32_gemv_up", MatrixForm::int4, true, 1, 4864, 896},
    {"fp32_gemv_head", MatrixForm::int8, true, 1, 32768, 896},
};

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class T>
Aligned<T> random_integers(std::mt19937& random, size_t n, int low, int high) {
  Aligned<T> values(n);
  std::uniform_int_distribution<int> distribution(low, high);
  for (T& v : values) v = static_cast<T>(distribution(random));
  return values;
}

Aligned<float> random_floats(std::mt19937& random, size_t n, float low, float high) {
  Aligned<float> values(n);
  std::uniform_real_distribution<float> distribution(low, high);
  for (float& v : values) v = distribution(random);
  return values;
}

Matrix random_matrix(std::mt19937& random, const Product& product) {
  const int n = product.out_features, k = product.in_features;
  const size_t size = static_cast<size_t>(n) * k;
  if (product.form == MatrixForm::int8) {
    return pack_int8(random_integers<int8_t>(random, size, -127, 127).data(),
                     random_floats(random, n, 1e-3f, 2e-3f).data(), n, k);
  }
  return pack_int4(random_integers<uint8_t>(random, size, 0, 15).data(),
                   random_floats(random, size / kGroupSize, 1e-2f, 2e-2f).data(), nullptr, nullptr, n, k, kGroupSize);
}

// The product's data, and one call of it.
struct Run {
  Matrix weight;
  Aligned<float> x, q_scales, out;
  Aligned<int8_t> q;
  Aligned<int32_t> q_sums;
  MatmulArgs args{};

  Run(const Product& product, const Ops& ops, Stream& stream) {
    std::mt19937 random(1);
    weight = random_matrix(random, product);
    const size_t n_tokens = product.n_tokens, k = product.in_features;
    x = random_floats(random, n_tokens * k, -1, 1);
    out = Aligned<float>(n_tokens * product.out_features);
    args.weight = &weight;
    args.out = out.data();
    args.out_stride = product.out_features;
    args.n_tokens = product.n_tokens;
    if (product.fp32_activations) {
      args.x = x.data();
      return;
    }
    q = Aligned<int8_t>(n_tokens * k);
    q_scales = Aligned<float>(n_tokens * k / kGroupSize);
    q_sums = Aligned<int32_t>(n_tokens * k / kGroupSize);
    ops.quantize_rows({x.data(), product.n_tokens, product.in_features, kGroupSize, nullptr, q.data(), q_scales.data(),
                       q_sums.data()},
                      stream);
    args.q = q.data();
    args.q_scales = q_scales.data();
    args.q_sums = q_sums.data();
    args.q_group_size = kGroupSize;
  }

  // Largest difference from the reference over the first, the middle and the last token, relative to the largest value.
  double error(const Ops& reference, Stream& stream) const {
    Aligned<float> expected(weight.out_features);
    double difference = 0, largest = 0;
    for (int64_t t : {0, args.n_tokens / 2, args.n_tokens - 1}) {
      MatmulArgs one = args;
      one.n_tokens = 1;
      one.out = expected.data();
      if (args.x) {
        one.x += t * weight.in_features;
      } else {
        one.q += t * weight.in_features;
        one.q_scales += t * weight.in_features / kGroupSize;
        one.q_sums += t * weight.in_features / kGroupSize;
      }
      reference.matmul(one, stream);
      for (int n = 0; n < weight.out_features; ++n) {
        difference = std::max(difference, std::fabs(static_cast<double>(expected[n]) - out[t * args.out_stride + n]));
        largest = std::max(largest, std::fabs(static_cast<double>(expected[n])));
      }
    }
    return difference / largest;
  }
};

void time_product(const Product& product, const Ops& ops, Stream& stream) {
  Run run(product, ops, stream);
  std::fill(run.out.begin(), run.out.end(), std::nanf(""));
  ops.matmul(run.args, stream);
  const double error = run.error(*backends().front(), stream);
  // 8-bit products are integers and one FMA a group: nothing may differ.
  if (!(error <= (product.fp32_activations ? 2e-6 : 0))) {
    fail(ErrorCode::internal, product.name, ": differs from the reference by ", error, ", not timed");
  }

  std::vector<double> seconds;
  int calls = 1;
  while (seconds.size() < kRounds) {
    const double start = cpu_seconds();
    for (int i = 0; i < calls; ++i) ops.matmul(run.args, stream);
    const double spent = cpu_seconds() - start;
    if (spent >= kRoundSeconds) seconds.push_back(spent / calls);
    else calls = static_cast<int>(calls * std::clamp(1.2 * kRoundSeconds / spent, 1.5, 100.0)) + 1;
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[kRounds / 2];
  const double operations = 2.0 * product.n_tokens * product.out_features * product.in_features;
  std::printf("%-9s %-15s %4d x %5d x %4d  %10.1f us  %7.1f GOP/s (best %7.1f)  weights %6.2f GB/s\n", ops.name,
              product.name, product.n_tokens, product.out_features, product.in_features, median * 1e6,
              operations / median * 1e-9, operations / seconds.front() * 1e-9,
              static_cast<double>(run.weight.bytes()) / median * 1e-9);
  std::fflush(stdout);
}

// Median seconds of one call of `work`, which must take long enough to be timed.
template <class Work>
double median_seconds(const Work& work) {
  std::vector<double> seconds;
  while (seconds.size() < kRounds) {
    const double start = cpu_seconds();
    work();
    seconds.push_back(cpu_seconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[kRounds / 2];
}

#if defined(__x86_64__)
// The inner step of the int4 product on AVX2, 32 multiply-adds in a multiplication and an addition, with nothing to wait for.
__attribute__((target("avx2"))) void multiply_adds(int64_t n_steps) {
  for (int64_t i = 0; i < n_steps; ++i) {
#define STEP(sum, product) "vpmaddubsw %%ymm15, %%ymm14, %%ymm" #product "\n vpaddw %%ymm" #product ", %%ymm" #sum ", %%ymm" #sum "\n"
    asm volatile(STEP(0, 8) STEP(1, 9) STEP(2, 10) STEP(3, 11) STEP(4, 12) STEP(5, 13) STEP(6, 8) STEP(7, 9)::
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15");
#undef STEP
  }
}
#endif

void time_peaks() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    constexpr int64_t kSteps = 10'000'000;
    const double seconds = median_seconds([] { multiply_adds(kSteps); });
    std::printf("peak_int8: %.1f GOP/s\n", 2.0 * 32 * 8 * kSteps / seconds * 1e-9);
  }
#endif
  constexpr size_t kBytes = size_t{256} << 20;
  Aligned<uint64_t> memory(kBytes / sizeof(uint64_t));
  std::fill(memory.begin(), memory.end(), 1);
  uint64_t sum = 0;
  const double seconds = median_seconds([&] {
    // Eight chains: no load waits for an addition. Fetched ahead, as the products fetch their weights.
    uint64_t sums[8] = {};
    for (size_t i = 0; i < memory.size(); i += 8) {
      __builtin_prefetch(memory.data() + i + 256);
      for (int j = 0; j < 8; ++j) sums[j] += memory[i + j];
    }
    for (uint64_t one : sums) sum += one;
  });
  if (sum != memory.size() * kRounds) fail(ErrorCode::internal, "peak_read: wrong sum, not timed");
  std::printf("peak_read: %.1f GB/s\n", kBytes / seconds * 1e-9);
}

const Product& product_named(const std::string& name) {
  for (const Product& product : kProducts) {
    if (name == product.name) return product;
  }
  fail(ErrorCode::invalid_argument, "bench_kernels: no row is named \"", name, "\"");
}

int run(const std::vector<std::string>& arguments) {
  Stream stream(1);
  const Ops& ops = best_backend();
  if (arguments.size() == 2 && arguments[0] == "--once") {
    Run run(product_named(arguments[1]), ops, stream);
    ops.matmul(run.args, stream);
    return 0;
  }
  if (arguments.empty()) {
    for (const Product& product : kProducts) time_product(product, ops, stream);
    time_peaks();
  }
  for (const std::string& name : arguments) {
    if (name == "peaks") time_peaks();
    else time_product(product_named(name), ops, stream);
  }
  return 0;
}

}  // namespace
}  // namespace sala

int main(int argc, char** argv) {
  try {
    return sala::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const sala::EngineError& error) {
    std::fprintf(stderr, "%s: %s\n", sala::error_code_name(error.code()), error.what());
    return 1;
  }
}
