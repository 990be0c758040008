// llama.cpp's side of `compare.mjs`: its prebuilt libraries, driven as its own llama-bench drives them (batches of 2,048, micro-batches
// of 512, a thread pool that stays, weights repacked). Compiled by peer.mjs against the headers of the same version. Ids are random.
//
//   peer LIBRARIES model FILE THREADS on|off N_CTX    flash attention on or off; says `ready` and the number of parameters;
//                                                   then commands, one a line, each answered by one:
//     reset         an empty sequence                              ok
//     prefill N     N more tokens                                  wall_s cpu_s
//     decode N      N tokens one by one, then taken back           wall_s cpu_s
//     fill N        the sequence behind itself, again and again, up to N tokens: attention costs as much as if they had
//                   been read (dense models only)                ok
//   peer LIBRARIES kernel N_TOKENS OUT IN [once]      one thread: the product of a repacked q4_0 matrix and fp32 rows (quantised on
//                                                     the way, as in its graph): seconds of CPU for one; "once": run once, silent
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "llama.h"

namespace {

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "peer: %s\n", what);
  std::exit(1);
}

double wall_seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// User and system time of all threads.
double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// A function that the CPU library exports through its registry only.
template <class Function>
Function* cpu_function(const char* name) {
  ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  if (!device) give_up("no CPU backend");
  void* found = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name);
  if (!found) give_up(name);
  return reinterpret_cast<Function*>(found);
}

class Model {
 public:
  Model(const char* file, int n_threads, bool flash_attention, int n_ctx) {
    model_ = llama_model_load_from_file(file, llama_model_default_params());
    if (!model_) give_up("the model does not load");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = n_ctx;
    params.n_batch = kBatch;
    params.n_ubatch = 512;
    params.n_seq_max = 2;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = n_threads;
    params.flash_attn_type = flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context_ = llama_init_from_model(model_, params);
    if (!context_) give_up("no context of this length");
    ggml_threadpool_params pool = ggml_threadpool_params_default(n_threads);
    llama_attach_threadpool(context_, cpu_function<ggml_threadpool_t(ggml_threadpool_params*)>("ggml_threadpool_new")(&pool), nullptr);
    n_vocab_ = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  }

  uint64_t n_parameters() const { return llama_model_n_params(model_); }

  void reset() { llama_memory_clear(memory(), true); }

  void run(int n, int batch) {
    std::vector<llama_token> ids(batch);
    for (; n > 0; n -= batch) {
      batch = std::min(batch, n);
      for (int i = 0; i < batch; ++i) ids[i] = llama_token(random_() % n_vocab_);
      if (llama_decode(context_, llama_batch_get_one(ids.data(), batch)) != 0) give_up("a batch failed");
      llama_synchronize(context_);
    }
  }
  void prefill(int n) { run(n, kBatch); }
  void decode(int n) { run(n, 1); }

  std::vector<uint8_t> snapshot() const {
    std::vector<uint8_t> state(llama_state_seq_get_size(context_, 0));
    llama_state_seq_get_data(context_, state.data(), state.size(), 0);
    return state;
  }
  void restore(const std::vector<uint8_t>& state, int sequence = 0) {
    llama_memory_seq_rm(memory(), sequence, -1, -1);
    if (llama_state_seq_set_data(context_, state.data(), state.size(), sequence) == 0) give_up("a state cannot be restored");
  }

  void fill(int n) {
    for (int length; (length = llama_memory_seq_pos_max(memory(), 0) + 1) < n;) {
      if (length == 0 || !llama_memory_can_shift(memory())) give_up("this sequence cannot be copied behind itself");
      restore(snapshot(), 1);
      llama_memory_seq_rm(memory(), 1, n - length, -1);
      llama_memory_seq_add(memory(), 1, -1, -1, length);
      llama_memory_seq_cp(memory(), 1, 0, -1, -1);
      llama_memory_seq_rm(memory(), 1, -1, -1);
    }
    // Keys are rotated to their new positions with the next token.
    decode(1);
    llama_memory_seq_rm(memory(), 0, n, -1);
  }

 private:
  llama_memory_t memory() const { return llama_get_memory(context_); }

  static constexpr int kBatch = 2048;
  llama_model* model_;
  llama_context* context_;
  int n_vocab_;
  std::mt19937 random_{1};
};

template <class Work>
void timed(Work work) {
  const double wall = wall_seconds(), cpu = cpu_seconds();
  work();
  std::printf("%.6f %.6f\n", wall_seconds() - wall, cpu_seconds() - cpu);
}

void serve(Model& model) {
  model.prefill(64);
  model.decode(4);
  std::printf("ready %llu\n", static_cast<unsigned long long>(model.n_parameters()));
  std::fflush(stdout);
  for (std::string line, command; std::getline(std::cin, line); std::fflush(stdout)) {
    int n = 0;
    std::istringstream(line) >> command >> n;
    if (command == "reset") {
      model.reset();
      std::puts("ok");
    } else if (command == "fill") {
      model.fill(n);
      std::puts("ok");
    } else if (command == "prefill") {
      timed([&] { model.prefill(n); });
    } else if (command == "decode") {
      const std::vector<uint8_t> before = model.snapshot();
      timed([&] { model.decode(n); });
      model.restore(before);
    } else {
      give_up("unknown command");
    }
  }
}

// The buffer type in which q4_0 is repacked.
ggml_backend_buffer_type_t repacking_buffer() {
  const auto extra = cpu_function<std::remove_pointer_t<ggml_backend_dev_get_extra_bufts_t>>("ggml_backend_dev_get_extra_bufts");
  ggml_backend_buffer_type_t* type = extra(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
  for (; type && *type; ++type) {
    if (std::strcmp(ggml_backend_buft_name(*type), "CPU_REPACK") == 0) return *type;
  }
  give_up("this CPU library has no repacked q4_0");
}

void kernel(int n_tokens, int out, int in, bool once) {
  ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  cpu_function<std::remove_pointer_t<ggml_backend_set_n_threads_t>>("ggml_backend_set_n_threads")(cpu, 1);
  const ggml_init_params no_data{ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true};
  ggml_context* weights = ggml_init(no_data);
  ggml_context* work = ggml_init(no_data);
  ggml_tensor* w = ggml_new_tensor_2d(weights, GGML_TYPE_Q4_0, in, out);
  ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(weights, repacking_buffer());
  ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  ggml_tensor* x = ggml_new_tensor_2d(work, GGML_TYPE_F32, in, n_tokens);
  ggml_tensor* y = ggml_mul_mat(work, w, x);
  ggml_cgraph* graph = ggml_new_graph(work);
  ggml_build_forward_expand(graph, y);
  ggml_backend_alloc_ctx_tensors(work, cpu);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(size_t(in) * std::max(out, n_tokens));
  for (float& value : values) value = normal(random);
  std::vector<uint8_t> blocks(ggml_nbytes(w));
  ggml_quantize_chunk(GGML_TYPE_Q4_0, values.data(), blocks.data(), 0, out, in, nullptr);
  ggml_backend_tensor_set(w, blocks.data(), 0, blocks.size());
  ggml_backend_tensor_set(x, values.data(), 0, ggml_nbytes(x));

  const auto run = [&] {
    if (ggml_backend_graph_compute(cpu, graph) != GGML_STATUS_SUCCESS) give_up("the graph failed");
  };
  run();
  if (once) return;
  std::vector<double> seconds;
  for (int calls = 1; seconds.size() < 15;) {
    const double start = cpu_seconds();
    for (int i = 0; i < calls; ++i) run();
    const double spent = cpu_seconds() - start;
    if (spent >= 0.05) seconds.push_back(spent / calls);
    else calls *= 2;
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("%.9f\n", seconds[seconds.size() / 2]);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() < 5) give_up("expected LIBRARIES and what to run");
  llama_log_set([](ggml_log_level level, const char* text, void*) {
    if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
  }, nullptr);
  ggml_backend_load_all_from_path(args[0].c_str());
  llama_backend_init();
  if (args[1] == "model" && args.size() == 6) {
    Model model(args[2].c_str(), std::stoi(args[3]), args[4] == "on", std::stoi(args[5]));
    serve(model);
  } else if (args[1] == "kernel") {
    kernel(std::stoi(args[2]), std::stoi(args[3]), std::stoi(args[4]), args.size() == 6);
  } else {
    give_up("unknown arguments");
  }
  std::fflush(stdout);
  // Its libraries tear their threads down in an order of their own.
  std::_Exit(0);
}
