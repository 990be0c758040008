// Reading: which segments the question's own attention goes to (design section 6). Prefix and turn run alone up to the read layer;
// there the queries of the question's words meet the stored keys of every segment but their headers: one softmax, mean over words
// and heads, summed by segment.
#pragma once

#include "native/jobs/job.h"

namespace sala {

class ReadJob : public ResultJob<std::vector<float>> {
 public:
  ReadJob(Engine& engine, ReadInput input, Completion<std::vector<float>> done);
  bool step() override;

 private:
  void start();
  void prepare_queries();
  void meet_keys();
  std::vector<float> shares() const;

  Engine& engine_;
  ReadInput input_;
  int n_prefix_calls_;                      // when the job was made
  std::unique_ptr<Sequence> sequence_;
  std::unique_ptr<Forward> forward_;
  int n_before_ = 0;                        // rows of the pass before the turn's first token
  struct HeadGroup {                        // query heads that share a K/V head
    int kv_head;
    std::vector<int> heads;
    Aligned<float> q;                       // [n_span * heads, head_dim], scaled
    std::vector<float> max, sum;            // [n_span * heads, n_segments]
  };
  std::vector<HeadGroup> groups_;
  size_t next_segment_ = 0;
};

}  // namespace sala
