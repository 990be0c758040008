// Runs every input of the corpora, then ROUNDS alterations of each, made from a fixed seed, through their fuzz targets; meant to be
// built with AddressSanitizer and UBSan (fuzz_replay in CMakeLists.txt). An input that fails is written to crash-input. Where
// clang is at hand its libFuzzer finds more, with one target at a time (README.md).
//   fuzz_replay CORPUS [--only TARGET] [--rounds N]
//   fuzz_replay CORPUS --make-store-seeds
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "test/fuzz/small_store.h"

// What each target calls LLVMFuzzerTestOneInput, renamed when they are compiled to lie side by side.
extern "C" int fuzz_config(const uint8_t* data, size_t size);
extern "C" int fuzz_gptq(const uint8_t* data, size_t size);
extern "C" int fuzz_pack(const uint8_t* data, size_t size);
extern "C" int fuzz_safetensors(const uint8_t* data, size_t size);
extern "C" int fuzz_store(const uint8_t* data, size_t size);
// Of the sanitizers' run time, where it is linked.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));
// Sizes in files may be absurd: then an allocation fails as it does without a sanitizer. Leaks cannot be looked for where tracing
// is forbidden, as it is in many containers.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1:detect_leaks=0"; }

namespace {

struct Target {
  const char* name;  // of its folder in the corpus
  int (*run)(const uint8_t* data, size_t size);
};
constexpr Target kTargets[] = {{"config", fuzz_config}, {"gptq", fuzz_gptq}, {"pack", fuzz_pack}, {"safetensors", fuzz_safetensors}, {"store", fuzz_store}};

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<char> running;  // the input that is being tried

void save_running() {
  std::ofstream("crash-input", std::ios::binary).write(running.data(), static_cast<std::streamsize>(running.size()));
}

void run(const Target& target, const std::string& input) {
  running = std::vector<char>(input.begin(), input.end());  // of exactly this size, so that a byte too far is seen
  target.run(reinterpret_cast<const uint8_t*>(running.data()), running.size());
}

std::string altered(std::string input, const std::vector<std::string>& corpus, std::mt19937& random) {
  static const char* const kPieces[] = {
      "0", "-1", "1e999", "18446744073709551615", "9223372036854775808", "null", "[]", "{}", "\"", "[[[[", ","};
  for (int n = 1 + static_cast<int>(random() % 4); n > 0; --n) {
    const size_t at = input.empty() ? 0 : random() % input.size();
    switch (random() % 6) {
      case 0:
        if (!input.empty()) input[at] = static_cast<char>(random());
        break;
      case 1:
        if (!input.empty()) input[at] = static_cast<char>(input[at] ^ 1 << random() % 8);
        break;
      case 2:
        input.insert(at, kPieces[random() % std::size(kPieces)]);
        break;
      case 3:
        input.erase(at, random() % 16);
        break;
      case 4:
        input.resize(at);
        break;
      case 5: {
        const std::string& other = corpus[random() % corpus.size()];
        if (!other.empty()) input.insert(at, other, random() % other.size(), random() % 64);
        break;
      }
    }
  }
  return input;
}

// Each file of the small store as it is, and with its checksums to be mended.
void make_store_seeds(const std::string& folder) {
  std::filesystem::create_directories(folder);
  uint8_t n = 0;
  for (const auto& [path, bytes] : sala::small_store()) {
    const std::string name = path.substr(path.rfind('/') + 1);
    for (const uint8_t flags : {0x00, 0x80}) {
      std::ofstream file(folder + "/" + name + (flags ? "-mended" : ""), std::ios::binary);
      file << char(n | flags) << bytes;
    }
    ++n;
  }
}

void make_pack_seeds(const std::string& folder) {
  std::filesystem::create_directories(folder);
  const std::string bytes = sala::small_pack();
  for (const uint8_t flags : {0x00, 0x80}) {
    std::ofstream file(folder + (flags ? "/pack-mended" : "/pack"), std::ios::binary);
    file << char(flags) << bytes;
  }
}

}  // namespace

int main(int argc, char** argv) {
  long n_rounds = 0;
  std::string folder, only;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
      n_rounds = std::atol(argv[++i]);
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else if (std::strcmp(argv[i], "--make-store-seeds") == 0) {
      make_store_seeds(folder + "/store");
      make_pack_seeds(folder + "/pack");
      return 0;
    } else {
      folder = argv[i];
    }
  }
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(save_running);
  std::set_terminate([] {
    save_running();
    std::abort();
  });
  int n_passed = 0;
  for (const Target& target : kTargets) {
    if (!only.empty() && only != target.name) continue;
    std::vector<std::filesystem::path> paths;
    std::error_code missing;
    for (const auto& entry : std::filesystem::directory_iterator(folder + "/" + target.name, missing)) paths.push_back(entry.path());
    if (paths.empty()) {
      std::fprintf(stderr, "expected inputs in %s/%s, found none\n", folder.c_str(), target.name);
      return 2;
    }
    std::sort(paths.begin(), paths.end());  // the order of a folder is not defined, that of the rounds is
    std::vector<std::string> corpus;
    for (const auto& path : paths) corpus.push_back(read(path));
    std::mt19937 random(1);
    for (const std::string& input : corpus) run(target, input);
    for (long round = 0; round < n_rounds; ++round) {
      for (const std::string& input : corpus) run(target, altered(input, corpus, random));
    }
    std::printf("%s: %zu inputs, %ld alterations of each: no failure\n", target.name, corpus.size(), n_rounds);
    ++n_passed;
  }
  std::printf("%d passed, 0 failed\n", n_passed);
  return n_passed > 0 ? 0 : 2;
}
