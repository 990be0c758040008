// Prefill and decode of one tail.
#pragma once

#include "native/jobs/job.h"
#include "native/speculation.h"

namespace sala {

class PrefillJob : public ResultJob<PrefillResult> {
 public:
  PrefillJob(Engine& engine, int tail, std::vector<int32_t> tokens, int n_logits, bool blocks, Completion<PrefillResult> done);
  bool step() override;

 private:
  void start();
  void start_pass(Tail& tail);
  void finish_pass(Tail& tail);
  void broken_off(const std::exception_ptr& error) noexcept override;

  Engine& engine_;
  int tail_;
  std::vector<int32_t> tokens_;        // all that is run: prefix or pending token first, where there is one
  int n_logits_;
  bool blocks_;
  bool started_ = false;
  size_t next_ = 0, n_pass_ = 0, n_before_ = 0;  // n_before_: leading tokens that the caller did not give
  std::unique_ptr<Forward> forward_;
  std::vector<SelectedBlocks> pass_blocks_;
  PrefillResult result_;
  Stopwatch stopwatch_;
};

class DecodeJob : public ResultJob<DecodeResult> {
 public:
  DecodeJob(Engine& engine, int tail, DecodeOptions options, Completion<DecodeResult> done);
  // One pass a step, all layers, and the tokens that it decides: a tail whose decoding is cancelled stays whole. One whose step
  // fails does not.
  bool step() override;

 private:
  bool finish(DecodeStop stop);
  std::vector<int32_t> proposal(const Tail& tail);
  // Takes the best id of some logits; true if it ends the decoding.
  bool take(Tail& tail, const float* logits);
  void broken_off(const std::exception_ptr& error) noexcept override;

  Engine& engine_;
  int tail_;
  DecodeOptions options_;
  bool started_ = false;
  bool half_run_ = false;              // a token is in some layers, not in others, or tokens that may be wrong are in
  Speculation speculation_;
  std::vector<float> logits_;          // [rows of a pass, vocab_size]
  DecodeResult result_;
  Stopwatch stopwatch_;
};

}  // namespace sala
