// A folder of a test's own, for as long as it runs.
#pragma once

#include <filesystem>
#include <random>
#include <string>

namespace sala {

struct Folder {
  std::string path = (std::filesystem::temp_directory_path() / ("sala-test-" + std::to_string(std::random_device()()))).string();
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

}  // namespace sala
