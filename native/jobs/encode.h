// Runs segments through the model, each alone after the prefix, and turns their keys and values into images.
#pragma once

#include "native/jobs/job.h"

namespace sala {

// The image of a segment from the sequence that has run prefix and segment: its rows are n_prefix … n_prefix + n_tokens − 1.
Aligned<uint8_t> segment_image(const Model& model, const Sequence& sequence, int n_prefix, const SegmentLayout& layout);

class EncodeJob : public ResultJob<EncodeResult> {
 public:
  EncodeJob(Engine& engine, std::vector<SegmentInput> segments, std::function<void(int)> on_segment, Completion<EncodeResult> done);
  bool step() override;

 private:
  void start_pass();
  void keep_next();
  void broken_off(const std::exception_ptr& error) noexcept override;

  Engine& engine_;
  std::vector<SegmentInput> segments_;
  std::function<void(int)> on_segment_;
  int n_prefix_calls_;                                   // when the job was made
  size_t next_ = 0;
  std::vector<int> in_pass_;                             // indices of the segments that are being run
  size_t n_kept_ = 0;                                    // of those
  std::vector<std::unique_ptr<Sequence>> sequences_;     // reused from pass to pass
  std::unique_ptr<Forward> forward_;
  EncodeResult result_;
  Stopwatch stopwatch_;
};

}  // namespace sala
