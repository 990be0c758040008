// A main for the fuzz targets where libFuzzer is not at hand: runs every file of the corpus folders, then ROUNDS
// alterations of each, made from a fixed seed. Meant to run under AddressSanitizer; an input that fails is written to
// crash-input.
//   replay FOLDER… [--rounds N]
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

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Of the sanitizers' run time, where it is linked.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<char> running;  // the input that is being tried

void save_running() {
  std::ofstream("crash-input", std::ios::binary).write(running.data(), static_cast<std::streamsize>(running.size()));
}

void run(const std::string& input) {
  running = std::vector<char>(input.begin(), input.end());  // of exactly this size, so that a byte too far is seen
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(running.data()), running.size());
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

}  // namespace

int main(int argc, char** argv) {
  long n_rounds = 0;
  std::vector<std::string> corpus;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
      n_rounds = std::atol(argv[++i]);
      continue;
    }
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());  // the order of a folder is not defined, that of the rounds is
    for (const auto& path : paths) corpus.push_back(read(path));
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "usage: replay FOLDER... [--rounds N], found no corpus file\n");
    return 2;
  }
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(save_running);
  std::set_terminate([] {
    save_running();
    std::abort();
  });
  std::mt19937 random(1);
  for (const std::string& input : corpus) run(input);
  for (long round = 0; round < n_rounds; ++round) {
    for (const std::string& input : corpus) run(altered(input, corpus, random));
  }
  std::printf("%zu inputs, %ld alterations of each: no failure\n", corpus.size(), n_rounds);
  return 0;
}
