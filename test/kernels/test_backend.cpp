#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/error.h"
#include "test/kernels/support.h"

using namespace sala;

TEST_CASE("tables are listed from plain to best, and complete") {
  const auto& list = backends();
  REQUIRE(list.size() >= 2);
  CHECK(std::string(list[0]->name) == "reference");
  CHECK(std::string(list[1]->name) == "portable");
  for (const Ops* ops : list) {
    CAPTURE(std::string(ops->name));
    CHECK(std::string(ops->family) == (ops == list[0] ? "reference" : "cpu"));
    // All entries behind the two names are function pointers; none may be null.
    void* entries[(sizeof(Ops) - offsetof(Ops, embed)) / sizeof(void*)];
    std::memcpy(entries, reinterpret_cast<const char*>(ops) + offsetof(Ops, embed), sizeof entries);
    for (void* entry : entries) CHECK(entry != nullptr);
  }
}

TEST_CASE("tables that this processor cannot run are named with what it lacks") {
  for (const UnusableBackend& backend : unusable_backends()) {
    for (const Ops* ops : backends()) CHECK(std::strcmp(ops->name, backend.name) != 0);
    CHECK(std::strlen(backend.lacking) > 0);
    const std::string message = std::string("compiled, not run: ").append(backend.name).append(": this processor lacks ").append(backend.lacking);
    MESSAGE(message);
  }
}

TEST_CASE("KERNEL_BACKEND names a table") {
  // The variable may be set by whoever runs the tests.
  const char* outer = std::getenv("KERNEL_BACKEND");
  const std::string saved = outer ? outer : "";
  unsetenv("KERNEL_BACKEND");
  CHECK(&best_backend() == backends().back());
  for (const Ops* ops : backends()) {
    setenv("KERNEL_BACKEND", ops->name, 1);
    CHECK(&best_backend() == ops);
  }
  for (const UnusableBackend& backend : unusable_backends()) {
    setenv("KERNEL_BACKEND", backend.name, 1);
    CHECK_THROWS_AS(best_backend(), EngineError);
  }
  setenv("KERNEL_BACKEND", "abacus", 1);
  try {
    best_backend();
    FAIL("expected an error");
  } catch (const EngineError& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK(std::string(error.what()).find("reference, portable") != std::string::npos);
    CHECK(std::string(error.what()).find("abacus") != std::string::npos);
  }
  outer ? setenv("KERNEL_BACKEND", saved.c_str(), 1) : unsetenv("KERNEL_BACKEND");
}
