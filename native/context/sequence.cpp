#include "native/context/sequence.h"

#include <algorithm>
#include <cstring>

#include "native/platform.h"

namespace sala {

namespace {

// Copies the first n floats of each head between buffers of different room per head.
void copy_heads(const Aligned<float>& from, int64_t from_stride, Aligned<float>& to, int64_t to_stride, size_t n, int n_heads) {
  if (from.empty() || n == 0) return;
  for (int g = 0; g < n_heads; ++g) std::memcpy(to.data() + g * to_stride, from.data() + g * from_stride, sizeof(float) * n);
}

// Compressed keys that n tokens have, at most: kernel 32, stride 16 (k1) and four times that (k2).
int n_k1_of(const SparseConfig& sparse, int n) { return n / sparse.kernel_stride + 1; }
int n_k2_of(const SparseConfig& sparse, int n) { return n / (4 * sparse.kernel_stride) + 1; }

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
  const int n_heads = config.num_key_value_heads, head_dim = config.head_dim;
  const size_t kv_size = TurnedKeys::size_of(n_heads, head_dim, capacity);
  check_room(2 * sizeof(float) * kv_size * config.n_sparse_layers(), capacity);
  const bool selects = exact && config.sparse_config.has_value();
  const bool scores_unrotated = selects && config.attn_use_rope && config.sparse_config->use_nope;
  for (int i = 0; i < config.n_sparse_layers(); ++i) {
    OwnKv kv;
    kv.k = TurnedKeys(n_heads, head_dim, capacity);
    kv.v = Aligned<float>(kv_size);
    if (scores_unrotated) kv.k_scored = TurnedKeys(n_heads, head_dim, capacity);
    if (selects) {
      kv.k1 = TurnedKeys(n_heads, head_dim, n_k1_of(*config.sparse_config, capacity));
      kv.k2 = TurnedKeys(n_heads, head_dim, n_k2_of(*config.sparse_config, capacity));
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
    const OwnKv& source = from.kv_[i];
    kv_[i].k.assign(source.k, length_);
    copy_heads(source.v, source.k.head_stride(), kv_[i].v, kv_[i].k.head_stride(), size_t(length_) * d, n_heads);
    if (!source.k_scored.empty()) kv_[i].k_scored.assign(source.k_scored, length_);
    if (source.k1.empty()) continue;
    kv_[i].k1.assign(source.k1, n_k1_of(*config_->sparse_config, length_));
    kv_[i].k2.assign(source.k2, n_k2_of(*config_->sparse_config, length_));
  }
  const int64_t chunk_size = int64_t(kLightningChunk) * config_->lightning_head_dim;
  const size_t n_partial = size_t(length_ % kLightningChunk) * config_->lightning_head_dim;
  for (size_t i = 0; i < recurrence_.size(); ++i) {
    std::copy(from.recurrence_[i].s.begin(), from.recurrence_[i].s.end(), recurrence_[i].s.begin());
    copy_heads(from.recurrence_[i].k_rows, chunk_size, recurrence_[i].k_rows, chunk_size, n_partial, config_->lightning_nkv);
    copy_heads(from.recurrence_[i].v_rows, chunk_size, recurrence_[i].v_rows, chunk_size, n_partial, config_->lightning_nkv);
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
  const auto size_of = [&](int n_rows) { return TurnedKeys::size_of(config.num_key_value_heads, config.head_dim, n_rows); };
  size_t n_layer = size_of(capacity) * (scores_unrotated ? 3 : 2);
  if (selects) n_layer += size_of(n_k1_of(*config.sparse_config, capacity)) + size_of(n_k2_of(*config.sparse_config, capacity));
  const size_t d = config.lightning_head_dim;
  const size_t n_lightning = d * (size_t(config.lightning_nh) * d + 2 * size_t(config.lightning_nkv) * kLightningChunk);
  return sizeof(float) * (config.n_sparse_layers() * n_layer + config.n_lightning_layers() * n_lightning);
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
