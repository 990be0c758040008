#include "native/context/sequence.h"

#include <algorithm>
#include <cstring>

#include "native/platform.h"

namespace sala {

namespace {

// Copies the first n rows of each head between buffers of different room per head.
void copy_rows(const Aligned<float>& from, int from_capacity, Aligned<float>& to, int to_capacity, int n_rows, int n_heads, int d) {
  if (from.empty() || n_rows == 0) return;
  for (int g = 0; g < n_heads; ++g) {
    std::memcpy(to.data() + size_t(g) * to_capacity * d, from.data() + size_t(g) * from_capacity * d, sizeof(float) * size_t(n_rows) * d);
  }
}

// The system may promise memory that it does not have and end the process when it is used. Asking costs some file reads, so
// only for sizes that could matter.
void check_room(size_t n_bytes, int capacity) {
  constexpr size_t kLarge = size_t(256) << 20;
  if (n_bytes < kLarge) return;
  const uint64_t available = system_memory().available_bytes;
  if (n_bytes > available) {
    fail(ErrorCode::out_of_memory, capacity, " tokens: expected ", n_bytes, " bytes of free memory for their keys and values, found ", available);
  }
}

}  // namespace

Sequence::Sequence(const ModelConfig& config, int capacity, bool exact) : config_(&config), capacity_(capacity), exact_(exact) {
  CHECK(capacity > 0);
  const size_t kv_size = size_t(config.num_key_value_heads) * capacity * config.head_dim;
  check_room(2 * sizeof(float) * kv_size * config.n_sparse_layers(), capacity);
  const bool selects = exact && config.sparse_config.has_value();
  const bool scores_unrotated = selects && config.attn_use_rope && config.sparse_config->use_nope;
  if (selects) {
    k1_capacity_ = capacity / config.sparse_config->kernel_stride + 1;
    k2_capacity_ = capacity / (4 * config.sparse_config->kernel_stride) + 1;
  }
  for (int i = 0; i < config.n_sparse_layers(); ++i) {
    OwnKv kv;
    kv.k = Aligned<float>(kv_size);
    kv.v = Aligned<float>(kv_size);
    if (scores_unrotated) kv.k_scored = Aligned<float>(kv_size);
    if (selects) {
      kv.k1 = Aligned<float>(size_t(config.num_key_value_heads) * k1_capacity_ * config.head_dim);
      kv.k2 = Aligned<float>(size_t(config.num_key_value_heads) * k2_capacity_ * config.head_dim);
    }
    kv_.push_back(std::move(kv));
  }
  const size_t d = config.lightning_head_dim;
  for (int i = 0; i < config.n_lightning_layers(); ++i) {
    recurrence_.push_back({Aligned<float>(config.lightning_nh * d * d), Aligned<float>(config.lightning_nkv * kLightningChunk * d),
                           Aligned<float>(config.lightning_nkv * kLightningChunk * d)});
  }
}

Sequence Sequence::fork(int capacity) const {
  CHECK(capacity >= length_);
  Sequence copy(*config_, capacity, exact_);
  copy.assign(*this);
  return copy;
}

void Sequence::assign(const Sequence& from) {
  CHECK(config_ == from.config_ && capacity_ >= from.length_ && exact_ == from.exact_);
  length_ = from.length_;
  final_length = from.final_length;
  const int n_heads = config_->num_key_value_heads, d = config_->head_dim;
  for (size_t i = 0; i < kv_.size(); ++i) {
    copy_rows(from.kv_[i].k, from.capacity_, kv_[i].k, capacity_, length_, n_heads, d);
    copy_rows(from.kv_[i].v, from.capacity_, kv_[i].v, capacity_, length_, n_heads, d);
    copy_rows(from.kv_[i].k_scored, from.capacity_, kv_[i].k_scored, capacity_, length_, n_heads, d);
    copy_rows(from.kv_[i].k1, from.k1_capacity_, kv_[i].k1, k1_capacity_, std::min(k1_capacity_, from.k1_capacity_), n_heads, d);
    copy_rows(from.kv_[i].k2, from.k2_capacity_, kv_[i].k2, k2_capacity_, std::min(k2_capacity_, from.k2_capacity_), n_heads, d);
  }
  const int n_rows = length_ % kLightningChunk;
  for (size_t i = 0; i < recurrence_.size(); ++i) {
    std::copy(from.recurrence_[i].s.begin(), from.recurrence_[i].s.end(), recurrence_[i].s.begin());
    copy_rows(from.recurrence_[i].k_rows, kLightningChunk, recurrence_[i].k_rows, kLightningChunk, n_rows, config_->lightning_nkv,
              config_->lightning_head_dim);
    copy_rows(from.recurrence_[i].v_rows, kLightningChunk, recurrence_[i].v_rows, kLightningChunk, n_rows, config_->lightning_nkv,
              config_->lightning_head_dim);
  }
}

size_t Sequence::bytes() const {
  size_t n = 0;
  for (const OwnKv& kv : kv_) n += kv.k.size() + kv.v.size() + kv.k_scored.size() + kv.k1.size() + kv.k2.size();
  for (const OwnRecurrence& r : recurrence_) n += r.s.size() + r.k_rows.size() + r.v_rows.size();
  return n * sizeof(float);
}

size_t Sequence::bytes_of(const ModelConfig& config, int capacity, bool exact) {
  const bool selects = exact && config.sparse_config.has_value();
  const bool scores_unrotated = selects && config.attn_use_rope && config.sparse_config->use_nope;
  size_t n_rows = size_t(capacity) * (scores_unrotated ? 3 : 2);
  if (selects) n_rows += size_t(capacity) / config.sparse_config->kernel_stride + size_t(capacity) / (4 * config.sparse_config->kernel_stride) + 2;
  const size_t d = config.lightning_head_dim;
  const size_t n_lightning = d * (size_t(config.lightning_nh) * d + 2 * size_t(config.lightning_nkv) * kLightningChunk);
  return sizeof(float) * (config.n_sparse_layers() * n_rows * config.num_key_value_heads * config.head_dim + config.n_lightning_layers() * n_lightning);
}

void Sequence::drop_last(int n_tokens) {
  CHECK(n_tokens >= 0 && n_tokens <= length_ % kLightningChunk);
  // Rows behind the length are overwritten before anything reads them: keys and values, compressed keys, rows of a partial chunk.
  length_ -= n_tokens;
}

int Sequence::n_droppable() const {
  const int n_rows = length_ % kLightningChunk;
  // The first token may complete a chunk, no later one may.
  return n_rows == kLightningChunk - 1 ? kLightningChunk : kLightningChunk - 1 - n_rows;
}

LightningState Sequence::recurrence(int lightning_layer) {
  OwnRecurrence& own = recurrence_[lightning_layer];
  return {own.s.data(), own.k_rows.data(), own.v_rows.data(), length_ % kLightningChunk};
}

}  // namespace sala
