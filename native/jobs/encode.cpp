#include "native/jobs/encode.h"

#include <algorithm>

namespace sala {

namespace {

// Segments of one pass: each needs a sequence with its own recurrent state, some megabytes.
constexpr size_t kPassSegments = 4;

// Rows [n, head_dim] in the stored form.
void store_rows(const Model& model, KvForm form, const float* rows, int n, int d, uint8_t* to, uint8_t* scales) {
  if (form == KvForm::f32) {
    std::copy_n(rows, size_t(n) * d, reinterpret_cast<float*>(to));
    return;
  }
  model.ops.quantize_rows({.x = rows, .n_rows = n, .n_cols = d, .group_size = d, .column_order = nullptr, .q = reinterpret_cast<int8_t*>(to),
                           .scales = reinterpret_cast<float*>(scales), .sums = nullptr},
                          model.stream);
}

}  // namespace

Aligned<uint8_t> segment_image(const Model& model, const Sequence& sequence, int n_prefix, const SegmentLayout& layout) {
  const int n = layout.n_tokens, d = layout.head_dim;
  Aligned<uint8_t> image(layout.image_bytes());
  Aligned<float> windows(size_t(layout.n_kv_heads) * layout.n_windows * d);
  Aligned<float> keys(size_t(layout.n_kv_heads) * n * d);  // row by row
  for (int layer = 0; layer < layout.n_sparse_layers; ++layer) {
    const OwnKv& own = sequence.kv(layer);
    for (int head = 0; head < layout.n_kv_heads; ++head) own.k.get(head, n_prefix, n, keys.data() + size_t(head) * n * d);
    if (layout.n_windows > 0) {
      // The segment's compressed keys: pooled from unrounded keys; the last windows are the mean of the tokens that they have.
      const SparseConfig& sparse = *model.config.sparse_config;
      model.ops.compress_keys({.k = keys.data(), .head_stride = int64_t(n) * d, .n_rows = n,
                               .n_kv_heads = layout.n_kv_heads, .head_dim = d, .kernel = sparse.kernel_size, .stride = sparse.kernel_stride,
                               .first_window = 0, .n_windows = layout.n_windows, .out = windows.data(),
                               .out_stride = int64_t(layout.n_windows) * d},
                              model.stream);
    }
    for (int head = 0; head < layout.n_kv_heads; ++head) {
      uint8_t* run = image.data() + layout.run_bytes * (size_t(layer) * layout.n_kv_heads + head);
      const float* values = own.v.data() + head * own.k.head_stride() + int64_t(n_prefix) * d;
      store_rows(model, layout.form, keys.data() + size_t(head) * n * d, n, d, run, run + layout.k_scales);
      store_rows(model, layout.form, values, n, d, run + layout.v, run + layout.v_scales);
      store_rows(model, layout.form, windows.data() + size_t(head) * layout.n_windows * d, layout.n_windows, d, run + layout.k1,
                 run + layout.k1_scales);
    }
  }
  return image;
}

EncodeJob::EncodeJob(Engine& engine, std::vector<SegmentInput> segments, std::function<void(int)> on_segment, Completion<EncodeResult> done)
    : ResultJob(std::move(done)), engine_(engine), segments_(std::move(segments)), on_segment_(std::move(on_segment)), n_prefix_calls_(engine.n_prefix_calls_) {
  result_.handles.assign(segments_.size(), -1);
}

bool EncodeJob::step() {
  engine_.prefix(n_prefix_calls_);  // still the one that the addresses and a pass under way are of
  if (!forward_) start_pass();
  if (!forward_) {
    result_.seconds = stopwatch_.seconds();
    engine_.update_memory();
    return deliver(std::move(result_));
  }
  if (!forward_->done()) {
    forward_->step();
    return false;
  }
  // Its checksums and the copy into the page cache take some milliseconds: one a step.
  keep_next();
  if (n_kept_ == in_pass_.size()) forward_.reset();
  return false;
}

void EncodeJob::start_pass() {
  std::vector<SequencePart> parts;
  int n_rows = 0;
  in_pass_.clear();
  n_kept_ = 0;
  for (; next_ < segments_.size() && in_pass_.size() < kPassSegments; ++next_) {
    SegmentInput& segment = segments_[next_];
    const int n = int(segment.tokens.size());
    if (n == 0 || segment.n_header_tokens < 0 || segment.n_header_tokens > n) {
      fail(ErrorCode::invalid_argument, "expected a segment with tokens and a header within them, found ", n, " and ", segment.n_header_tokens);
    }
    if (n_rows > 0 && n_rows + n > kPassTokens) break;
    // Twice the same segment in one pass: the second one is found when the pass is done.
    const int known = engine_.segments_->open(segment.key);
    const bool in_pass = std::any_of(in_pass_.begin(), in_pass_.end(), [&](int i) { return segments_[i].key == segment.key; });
    if (known >= 0) {
      result_.handles[next_] = known;
      if (on_segment_) on_segment_(int(next_));
      continue;
    }
    if (in_pass) break;
    const size_t slot = in_pass_.size();
    const int needed = engine_.prefix_->length() + n;
    if (slot == sequences_.size()) sequences_.emplace_back();
    // Its image is made before the store has it, and stays in memory where there is none.
    const size_t image_bytes = segment_layout(engine_.model_->config, engine_.model_->kv_form(), n).image_bytes();
    const bool is_new = !sequences_[slot] || sequences_[slot]->capacity() < needed;
    const size_t sequence_bytes = is_new ? Sequence::bytes_of(engine_.model_->config, std::max(needed, kPassTokens), false) : 0;
    engine_.memory_limit_.require(image_bytes + sequence_bytes, "reading a segment");
    if (is_new) {
      sequences_[slot] = std::make_unique<Sequence>(engine_.model_->config, std::max(needed, kPassTokens), false);
    }
    sequences_[slot]->assign(*engine_.prefix_);
    parts.push_back({sequences_[slot].get(), nullptr, segment.tokens});
    in_pass_.push_back(int(next_));
    n_rows += n;
  }
  if (!parts.empty()) forward_ = std::make_unique<Forward>(*engine_.model_, std::move(parts));
}

void EncodeJob::keep_next() {
  const Model& model = *engine_.model_;
  const int index = in_pass_[n_kept_];
  SegmentInput& segment = segments_[index];
  SegmentHeader header;
  header.key = segment.key;
  header.layout = segment_layout(model.config, model.kv_form(), int(segment.tokens.size()));
  header.n_header_tokens = segment.n_header_tokens;
  header.tokens = segment.tokens;
  Aligned<uint8_t> image = segment_image(model, *sequences_[n_kept_], engine_.prefix_->length(), header.layout);
  const SegmentTable::Added added = engine_.segments_->add(std::move(header), std::move(image));
  result_.handles[index] = added.handle;
  result_.n_encoded_tokens += int64_t(segment.tokens.size());
  if (added.store_failure && !result_.store_failure) result_.store_failure = added.store_failure;
  engine_.update_memory();
  ++n_kept_;
  if (on_segment_) on_segment_(index);
}

void EncodeJob::broken_off(const std::exception_ptr&) noexcept {
  // The store keeps what was encoded; the handles were never given out.
  for (int32_t handle : result_.handles) engine_.segments_->release(handle);
  engine_.update_memory();
}

}  // namespace sala
