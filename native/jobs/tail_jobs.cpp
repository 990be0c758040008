#include "native/jobs/tail_jobs.h"

#include <algorithm>

namespace sala {

namespace {

// Takes the tail for a job; throws what went wrong with it before.
Tail& begin_job(Tail& tail) {
  if (tail.failed) std::rethrow_exception(tail.failed);
  if (tail.busy) fail(ErrorCode::invalid_argument, "expected one request at a time on a tail, found a second one");
  tail.busy = true;
  return tail;
}

// The tail that a started job works on. It may have been released between two steps.
Tail& working_tail(std::map<int, Tail>& tails, int id) {
  const auto at = tails.find(id);
  if (at == tails.end()) fail(ErrorCode::cancelled, "tail ", id, " was released");
  return at->second;
}

// Greedy: the best id, the lowest at ties.
int32_t best_id(const float* logits, int vocab_size) { return int32_t(std::max_element(logits, logits + vocab_size) - logits); }

}  // namespace

PrefillJob::PrefillJob(Engine& engine, int tail, std::vector<int32_t> tokens, int n_logits, bool blocks, Completion<PrefillResult> done)
    : ResultJob(std::move(done)), engine_(engine), tail_(tail), tokens_(std::move(tokens)), n_logits_(n_logits), blocks_(blocks) {}

bool PrefillJob::step() {
  if (!started_) start();
  Tail& tail = working_tail(engine_.tails_, tail_);
  if (tail.view && !tail.view->fetch_some()) return false;
  if (!forward_) start_pass(tail);
  forward_->step();
  if (!forward_->done()) return false;
  finish_pass(tail);
  if (next_ < tokens_.size()) return false;
  tail.busy = false;
  result_.seconds = stopwatch_.seconds();
  engine_.update_memory();
  return deliver(std::move(result_));
}

void PrefillJob::start() {
  if (tokens_.empty()) fail(ErrorCode::invalid_argument, "expected tokens to run, found none");
  check_token_ids(engine_.model_->config, tokens_);
  Tail& tail = begin_job(engine_.tail(tail_));
  started_ = true;
  n_logits_ = std::min(n_logits_, int(tokens_.size()));
  std::vector<int32_t> before = tail.prefix_to_run;
  if (tail.pending) before.push_back(*tail.pending);
  n_before_ = before.size();
  tokens_.insert(tokens_.begin(), before.begin(), before.end());
  // Refused whole, before anything of it is run.
  const int room = tail.sequence->capacity() - tail.sequence->length();
  if (int(tokens_.size()) > room) {
    tail.busy = false;
    started_ = false;
    fail(ErrorCode::context_full, "expected a tail of at most ", tail.sequence->capacity(), " tokens with its prefix, found ",
         tail.sequence->length() + int(tokens_.size()));
  }
  tail.tokens.insert(tail.tokens.end(), tokens_.begin() + (tail.pending ? 1 : 0), tokens_.end());
  tail.prefix_to_run.clear();
  tail.pending.reset();
}

void PrefillJob::start_pass(Tail& tail) {
  n_pass_ = std::min(tokens_.size() - next_, size_t(kPassTokens));
  std::vector<SequencePart> parts;
  parts.push_back({&*tail.sequence, tail.view.get(), {tokens_.begin() + next_, tokens_.begin() + next_ + n_pass_}});
  pass_blocks_.clear();
  forward_ = std::make_unique<Forward>(*engine_.model_, std::move(parts));
  if (blocks_) forward_->selected = &pass_blocks_;
}

void PrefillJob::finish_pass(Tail& tail) {
  const size_t vocab_size = engine_.model_->config.vocab_size, end = next_ + n_pass_;
  const size_t first = std::max(next_, tokens_.size() - n_logits_);
  if (first < end) {
    const size_t at = result_.logits.size();
    result_.logits.resize(at + (end - first) * vocab_size);
    forward_->logits(0, int(first - next_), int(end - first), result_.logits.data() + at);
  }
  for (SelectedBlocks& blocks : pass_blocks_) {
    // Rows of the prefix's own tokens are not the caller's.
    const size_t row = size_t(engine_.model_->config.num_key_value_heads) * blocks.width;
    const size_t skipped = n_before_ > next_ ? std::min(n_before_ - next_, n_pass_) : 0;
    const auto known = std::find_if(result_.blocks.begin(), result_.blocks.end(), [&](const SelectedBlocks& b) { return b.layer == blocks.layer; });
    SelectedBlocks& all = known == result_.blocks.end() ? result_.blocks.emplace_back(SelectedBlocks{blocks.layer, blocks.width, {}}) : *known;
    all.ids.insert(all.ids.end(), blocks.ids.begin() + skipped * row, blocks.ids.end());
  }
  if (end == tokens_.size()) {
    tail.last_logits.resize(vocab_size);
    if (n_logits_ > 0) {
      std::copy(result_.logits.end() - vocab_size, result_.logits.end(), tail.last_logits.begin());
    } else {
      forward_->logits(0, int(n_pass_) - 1, 1, tail.last_logits.data());
    }
  }
  next_ = end;
  forward_.reset();
}

void PrefillJob::broken_off(const std::exception_ptr& error) noexcept {
  const auto at = engine_.tails_.find(tail_);
  if (!started_ || at == engine_.tails_.end()) return;
  // Some layers have seen tokens that others have not: nothing can go on from here, and what it held is of no use.
  forward_.reset();
  at->second = Tail{};
  at->second.failed = error;
}

DecodeJob::DecodeJob(Engine& engine, int tail, DecodeOptions options, Completion<DecodeResult> done)
    : ResultJob(std::move(done)), engine_(engine), tail_(tail), options_(std::move(options)), speculation_(std::move(options_.drafts)) {}

bool DecodeJob::finish(DecodeStop stop) {
  engine_.tail(tail_).busy = false;
  result_.stop = stop;
  result_.seconds = stopwatch_.seconds();
  return deliver(std::move(result_));
}

bool DecodeJob::step() {
  if (!started_) {
    Tail& tail = begin_job(engine_.tail(tail_));
    started_ = true;
    if (tail.last_logits.empty()) fail(ErrorCode::invalid_argument, "expected a tail that was prefilled, found one without logits");
  }
  Tail& tail = working_tail(engine_.tails_, tail_);
  if (int64_t(result_.ids.size()) >= options_.max_tokens) return finish(DecodeStop::max_tokens);
  if (!tail.pending) return take(tail, tail.last_logits.data()) && finish(DecodeStop::stop_id);

  // The token decoded last enters the sequence only now that another one is wanted.
  Sequence& sequence = *tail.sequence;
  if (sequence.length() == sequence.capacity()) return finish(DecodeStop::context_full);
  const std::vector<int32_t> proposed = proposal(tail);
  const int n_proposed = int(proposed.size()), vocab_size = engine_.model_->config.vocab_size;
  std::vector<int32_t> tokens{*tail.pending};
  tokens.insert(tokens.end(), proposed.begin(), proposed.end());
  logits_.resize(tokens.size() * size_t(vocab_size));
  std::vector<SequencePart> parts;
  parts.push_back({&sequence, tail.view.get(), std::move(tokens)});
  Forward forward(*engine_.model_, std::move(parts));
  half_run_ = true;
  while (!forward.done()) forward.step();
  forward.logits(0, 0, n_proposed + 1, logits_.data());
  // Row i stands if the proposed tokens before it are what rows 0 … i − 1 decided; the first id that is not the proposed one, or ends
  // the decoding, is the last. A caller that has enough gets no more.
  bool ends = false;
  int n_accepted = 0;
  for (;; ++n_accepted) {
    ends = take(tail, logits_.data() + size_t(n_accepted) * vocab_size);
    if (ends || cancelled() || n_accepted == n_proposed || *tail.pending != proposed[n_accepted]) break;
  }
  sequence.drop_last(n_proposed - n_accepted);
  half_run_ = false;
  if (n_proposed > 0) speculation_.verified(n_proposed, n_accepted);
  result_.n_proposed += n_proposed;
  result_.n_accepted += n_accepted;
  return ends && finish(DecodeStop::stop_id);
}

std::vector<int32_t> DecodeJob::proposal(const Tail& tail) {
  if (!options_.speculate) return {};
  const Sequence& sequence = *tail.sequence;
  int most = std::min({sequence.capacity() - sequence.length(), sequence.n_droppable(),
                       options_.max_tokens - int(result_.ids.size()), Speculation::kMany + 1});
  // In exact mode a pass is dense or sparse as a whole, so all of its rows have to be on the same side.
  const auto& sparse = engine_.model_->config.sparse_config;
  if (sequence.exact() && sparse && std::max(sequence.final_length, sequence.length() + 1) < sparse->dense_len) {
    most = int(std::min<int64_t>(most, sparse->dense_len - 1 - sequence.length()));
  }
  return speculation_.propose(tail.tokens, most - 1);
}

bool DecodeJob::take(Tail& tail, const float* logits) {
  const int vocab_size = engine_.model_->config.vocab_size;
  const int32_t id = best_id(logits, vocab_size);
  if (options_.logits) result_.logits.insert(result_.logits.end(), logits, logits + vocab_size);
  result_.ids.push_back(id);
  tail.tokens.push_back(id);
  if (logits != tail.last_logits.data()) std::copy_n(logits, vocab_size, tail.last_logits.begin());
  tail.pending = id;
  if (options_.on_token) options_.on_token(id);
  return std::find(options_.stop_ids.begin(), options_.stop_ids.end(), id) != options_.stop_ids.end();
}

void DecodeJob::broken_off(const std::exception_ptr& error) noexcept {
  const auto at = engine_.tails_.find(tail_);
  if (!started_ || at == engine_.tails_.end()) return;
  at->second.busy = false;
  if (half_run_) at->second.failed = error;
}

}  // namespace sala
