// Speculation: proposes how a text goes on by looking its last tokens up in the text itself and in drafts, other texts that it may
// quote. Proposals cost time and never change what is decoded: whoever takes them verifies them (jobs/tail_jobs.cpp).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace sala {

class Speculation {
 public:
  // A step of 4 rows, the certain token's among them, fills one register tile of the matrix products and costs little more than
  // a single row; 8 rows pay where a text is copied.
  static constexpr int kFew = 3, kMany = 7;

  explicit Speculation(std::vector<std::vector<int32_t>> drafts) : drafts_(std::move(drafts)) {}

  // At most `most` tokens that may follow `text`; empty where its end occurs nowhere else, and where proposals do not pay at present.
  std::vector<int32_t> propose(std::span<const int32_t> text, int most);

  // How many tokens of the last proposal were right, from the first on: decides what is proposed next.
  void verified(int n_proposed, int n_accepted);

 private:
  std::vector<std::vector<int32_t>> drafts_;
  int n_wanted_ = kFew;
  int n_misses_ = 0;  // proposals in a row without a right token
  int n_pause_ = 0;   // calls that will propose nothing
};

}  // namespace sala
