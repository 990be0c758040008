#include "native/jobs/read.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sala {

namespace {

// Keys met in one step: some milliseconds.
constexpr int64_t kStepKeys = 65536;

}  // namespace

ReadJob::ReadJob(Engine& engine, ReadInput input, Completion<std::vector<float>> done)
    : ResultJob(std::move(done)), engine_(engine), input_(std::move(input)), n_prefix_calls_(engine.n_prefix_calls_) {}

bool ReadJob::step() {
  engine_.prefix(n_prefix_calls_);  // still the one that this began with
  if (!forward_) start();
  if (forward_->n_layers_done() < input_.layer) {
    forward_->step();
    return false;
  }
  if (groups_.empty()) prepare_queries();
  if (next_segment_ < input_.segments.size()) {
    meet_keys();
    return false;
  }
  return deliver(shares());
}

void ReadJob::start() {
  const ModelConfig& config = engine_.model_->config;
  if (input_.layer < 0 || input_.layer >= config.num_hidden_layers || config.mixer_types[input_.layer] != MixerType::sparse) {
    fail(ErrorCode::invalid_argument, "expected a sparse layer to read with, found layer ", input_.layer);
  }
  if (input_.span_begin < 0 || input_.span_begin >= input_.span_end || input_.span_end > int(input_.tail.size())) {
    fail(ErrorCode::invalid_argument, "expected a span within ", input_.tail.size(), " tokens, found ", input_.span_begin, " to ", input_.span_end);
  }
  if (input_.heads.empty()) fail(ErrorCode::invalid_argument, "expected heads to read with, found none");
  for (int head : input_.heads) {
    if (head < 0 || head >= config.num_attention_heads) {
      fail(ErrorCode::invalid_argument, "expected heads below ", config.num_attention_heads, ", found ", head);
    }
  }
  std::vector<int32_t> tokens;
  const int capacity = engine_.prefix_->length() + int(input_.tail.size());
  if (input_.starts_from == TailStart::empty) {
    sequence_ = std::make_unique<Sequence>(config, capacity, false);
    tokens = engine_.prefix_tokens_;
  } else {
    sequence_ = std::make_unique<Sequence>(engine_.prefix_->fork(capacity));
  }
  n_before_ = int(tokens.size());
  tokens.insert(tokens.end(), input_.tail.begin(), input_.tail.end());
  std::vector<SequencePart> parts;
  parts.push_back({sequence_.get(), nullptr, std::move(tokens)});
  forward_ = std::make_unique<Forward>(*engine_.model_, std::move(parts));
}

void ReadJob::prepare_queries() {
  const ModelConfig& config = engine_.model_->config;
  const int d = config.head_dim, n_span = input_.span_end - input_.span_begin, n_segments = int(input_.segments.size());
  Aligned<float> q(size_t(n_span) * config.num_attention_heads * d);
  forward_->queries(0, n_before_ + input_.span_begin, n_span, q.data());
  int64_t n_memory = 0;
  for (int32_t handle : input_.segments) n_memory += engine_.segments_->layout(handle).n_tokens;
  for (int head : input_.heads) {
    const int kv_head = head / (config.num_attention_heads / config.num_key_value_heads);
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const HeadGroup& g) { return g.kv_head == kv_head; });
    if (group == groups_.end()) group = groups_.insert(groups_.end(), HeadGroup{kv_head, {}, {}, {}, {}});
    group->heads.push_back(head);
  }
  for (HeadGroup& group : groups_) {
    const size_t n_rows = size_t(n_span) * group.heads.size();
    group.q = Aligned<float>(n_rows * d);
    group.max.resize(n_rows * n_segments);
    group.sum.resize(n_rows * n_segments);
    for (int i = 0; i < n_span; ++i) {
      // It could see the prefix, the turn up to itself and all of memory, headers included.
      const int position = engine_.prefix_->length() + input_.span_begin + i;
      const float scale = logit_scale(config, double(position) + 1 + double(n_memory)) / std::sqrt(float(d));
      for (size_t h = 0; h < group.heads.size(); ++h) {
        const float* from = q.data() + (size_t(i) * config.num_attention_heads + group.heads[h]) * d;
        float* to = group.q.data() + (size_t(i) * group.heads.size() + h) * d;
        for (int c = 0; c < d; ++c) to[c] = from[c] * scale;
      }
    }
  }
}

void ReadJob::meet_keys() {
  const ModelConfig& config = engine_.model_->config;
  const auto& layers = config.mixer_types;
  const int sparse_layer = int(std::count(layers.begin(), layers.begin() + input_.layer, MixerType::sparse));
  const size_t n_segments = input_.segments.size(), first = next_segment_;
  int64_t n_keys = 0;
  while (next_segment_ < n_segments && n_keys < kStepKeys) n_keys += engine_.segments_->layout(input_.segments[next_segment_++]).n_tokens;
  const size_t n = next_segment_ - first;
  for (HeadGroup& group : groups_) {
    std::vector<SegmentImage> hold;
    std::vector<ReadSpan> spans;
    for (size_t i = first; i < next_segment_; ++i) {
      spans.push_back(engine_.segments_->reading_keys(input_.segments[i], sparse_layer, group.kv_head, hold));
    }
    const size_t n_rows = group.q.size() / config.head_dim;
    std::vector<float> max(n_rows * n), sum(n_rows * n);
    engine_.model_->ops.read_mass({group.q.data(), spans.data(), max.data(), sum.data(), int(n_rows), int(n), config.head_dim},
                                  engine_.model_->stream);
    for (size_t r = 0; r < n_rows; ++r) {
      std::copy_n(max.data() + r * n, n, group.max.data() + r * n_segments + first);
      std::copy_n(sum.data() + r * n, n, group.sum.data() + r * n_segments + first);
    }
  }
}

std::vector<float> ReadJob::shares() const {
  const size_t n_segments = input_.segments.size();
  std::vector<double> shares(n_segments, 0.0);
  size_t n_all_rows = 0;
  for (const HeadGroup& group : groups_) n_all_rows += group.q.size() / engine_.model_->config.head_dim;
  std::vector<double> mass(n_segments);
  for (const HeadGroup& group : groups_) {
    for (size_t r = 0; r < group.q.size() / engine_.model_->config.head_dim; ++r) {
      const float* max = group.max.data() + r * n_segments;
      const float* sum = group.sum.data() + r * n_segments;
      const double top = n_segments ? *std::max_element(max, max + n_segments) : 0.0;
      double total = 0;
      for (size_t s = 0; s < n_segments; ++s) {
        mass[s] = sum[s] > 0 ? double(sum[s]) * std::exp(double(max[s]) - top) : 0.0;
        total += mass[s];
      }
      if (total == 0) continue;  // segments of headers alone
      for (size_t s = 0; s < n_segments; ++s) shares[s] += mass[s] / total / double(n_all_rows);
    }
  }
  return {shares.begin(), shares.end()};
}

}  // namespace sala
