#include "native/speculation.h"

#include <algorithm>

namespace sala {

namespace {

// Tokens that have to agree before what follows is proposed; more agreeing ones make a place better, up to some.
constexpr int kLeastAgreeing = 2, kMostAgreeing = 16;
// The longest pause is 2^5 tokens: where nothing is ever right, one step in 33 carries a proposal.
constexpr int kMostMisses = 5;

// How many tokens before `end` of `text` are the last ones of `tail`, at most kMostAgreeing.
int n_agreeing(std::span<const int32_t> tail, std::span<const int32_t> text, size_t end) {
  int n = 0;
  const int most = int(std::min({size_t(kMostAgreeing), end, tail.size()}));
  while (n < most && text[end - 1 - n] == tail[tail.size() - 1 - n]) ++n;
  return n;
}

}  // namespace

std::vector<int32_t> Speculation::propose(std::span<const int32_t> text, int most) {
  if (most <= 0) return {};
  if (n_pause_ > 0) {
    --n_pause_;
    return {};
  }
  // The place where most tokens agree; the latest one of the text itself among equals, then one of the drafts.
  int best = kLeastAgreeing - 1;
  std::span<const int32_t> following;
  const auto look_in = [&](std::span<const int32_t> other) {
    for (size_t end = other.size(); end-- > 1;) {
      if (other[end - 1] != text.back()) continue;
      const int n = n_agreeing(text, other, end);
      if (n <= best) continue;
      best = n;
      following = other.subspan(end);
      if (n == kMostAgreeing) return;
    }
  };
  if (!text.empty()) {
    look_in(text);
    for (const auto& draft : drafts_) look_in(draft);
  }
  const size_t n = std::min({following.size(), size_t(most), size_t(n_wanted_)});
  return {following.begin(), following.begin() + n};
}

void Speculation::verified(int n_proposed, int n_accepted) {
  if (n_accepted == 0) {
    n_misses_ = std::min(n_misses_ + 1, kMostMisses);
    n_pause_ = n_misses_ < 2 ? 0 : 1 << n_misses_;
    n_wanted_ = kFew;
    return;
  }
  n_misses_ = 0;
  n_wanted_ = n_accepted == n_proposed && n_proposed >= kFew ? kMany : kFew;
}

}  // namespace sala
