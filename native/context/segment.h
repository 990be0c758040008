// The memory of one segment: keys, values and compressed keys of every sparse layer, in the form in which everyone but the
// segment itself reads them. One image serves memory and file alike (store/segment_record.h).
// Not here: how an image comes about (jobs/encode.h) or where it is kept.
//
// Image: per sparse layer, per K/V head one run of `run_bytes`:
//   K [n_tokens, head_dim] · scales of K [n_tokens] · V · scales of V · K1 [n_windows, head_dim] · scales of K1
// each part on a 64-byte border. KvForm::int8 has one fp32 scale per row; KvForm::f32 has no scales.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/ops.h"
#include "native/model_config.h"

namespace sala {

enum class KvForm : uint32_t { f32 = 0, int8 = 1 };

// Where everything lies in an image. All offsets in bytes, from the start of a run.
struct SegmentLayout {
  KvForm form = KvForm::int8;
  int n_tokens = 0;
  int n_windows = 0;
  int n_sparse_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  size_t k_scales = 0, v = 0, v_scales = 0, k1 = 0, k1_scales = 0, run_bytes = 0;

  size_t element_bytes() const { return form == KvForm::int8 ? 1 : sizeof(float); }
  size_t image_bytes() const { return run_bytes * size_t(n_kv_heads) * size_t(n_sparse_layers); }
  int n_blocks() const { return (n_tokens + kKvTile - 1) / kKvTile; }
  bool operator==(const SegmentLayout&) const = default;
};

SegmentLayout segment_layout(const ModelConfig& config, KvForm form, int n_tokens);
// From the counts alone: places the parts of a run behind each other. The counts of `layout` are set.
void place_parts(SegmentLayout& layout);

// Windows of compressed keys of n rows: starts 0, stride, … while start < max(1, n − (kernel / 2 − 1)).
int n_segment_windows(const SparseConfig& sparse, int n_tokens);

// An image in memory or mapped from a file; whoever holds it keeps it alive.
struct SegmentImage {
  std::shared_ptr<const void> owner;
  const uint8_t* bytes = nullptr;  // [image_bytes]
};

// Reads an image by layer (counted among the sparse layers), K/V head and row.
class SegmentKv {
 public:
  SegmentKv(const SegmentLayout& layout, const SegmentImage& image) : layout_(layout), bytes_(image.bytes) {}

  // Block `block` (64 rows) of all heads. Rows before `n_hidden` of the segment are hidden; n_rows ≤ first_row means: nothing
  // is visible.
  KvTile tile(int sparse_layer, int block, int n_hidden) const;

  // Compressed key windows of one head, as its image has them: [n_windows, head_dim] float or int8_t, int8: with a scale each.
  ReadSpan compressed_keys(int sparse_layer, int kv_head) const;

  // Keys of one head, its first `n_skipped` rows left out.
  ReadSpan keys(int sparse_layer, int kv_head, int n_skipped) const;

 private:
  const uint8_t* run(int sparse_layer, int kv_head) const {
    return bytes_ + layout_.run_bytes * (size_t(sparse_layer) * layout_.n_kv_heads + kv_head);
  }
  const SegmentLayout& layout_;
  const uint8_t* bytes_;
};

}  // namespace sala
