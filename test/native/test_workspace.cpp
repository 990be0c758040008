#include "doctest/doctest.h"
#include "native/workspace.h"

using namespace sala;

TEST_CASE("workspace: what is taken is apart, on borders, and comes back with its frame") {
  Workspace workspace;
  float* first;
  {
    Workspace::Frame outer(workspace);
    first = outer.take<float>(100);
    float* second = outer.take<float>(1);
    CHECK(reinterpret_cast<uintptr_t>(first) % 64 == 0);
    CHECK(reinterpret_cast<uintptr_t>(second) % 64 == 0);
    std::fill_n(first, 100, 1.0f);
    *second = 2;
    {
      Workspace::Frame inner(workspace);
      std::fill_n(inner.take<float>(5000), 5000, 3.0f);
    }
    std::fill_n(outer.take<float>(5000), 5000, 4.0f);
    CHECK(first[0] == 1);
    CHECK(first[99] == 1);
    CHECK(*second == 2);
    CHECK(outer.take<float>(0) != nullptr);
  }
  // The blocks became one, which holds all of it: nothing more is taken from the system.
  {
    Workspace::Frame frame(workspace);
    frame.take<float>(100);
  }
  const size_t bytes = workspace.bytes();
  for (int round = 0; round < 3; ++round) {
    Workspace::Frame frame(workspace);
    frame.take<float>(100);
    frame.take<float>(1);
    frame.take<float>(5000);
    CHECK(workspace.bytes() == bytes);
  }
}

TEST_CASE("workspace: sizes that cannot be are refused, and the rest stays usable") {
  Workspace workspace;
  Workspace::Frame frame(workspace);
  float* before = frame.take<float>(10);
  *before = 5;
  for (size_t n : {SIZE_MAX, SIZE_MAX / sizeof(float)}) {
    try {
      frame.take<float>(n);
      FAIL("taken");
    } catch (const EngineError& error) {
      CHECK(error.code() == ErrorCode::out_of_memory);
    }
  }
  *frame.take<float>(10) = 6;
  CHECK(*before == 5);
}
