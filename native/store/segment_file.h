// One encoded segment as a file: written once under its address, never changed, mapped when it is in view. Checked before use:
// header and reading keys when it is opened, every run when it is mapped.
// Not here: which segments belong to a workspace, budgets (extension/engine/indexer.ts).
//
//   header (128 bytes) · checksums, two for each run (K with its scales; the rest) · tokens · image (segment.h) on a 64-byte border
// All little-endian. A newer version is refused by `store_newer`; anything that does not fit its checksums is `store_invalid`.
#pragma once

#include <string>
#include <vector>

#include "native/context/segment.h"
#include "native/platform.h"
#include "native/store/segment_record.h"

namespace sala {

constexpr uint32_t kSegmentFileVersion = 1;

// `<folder>/<first two digits>/<64 digits>.seg`
std::string segment_path(const std::string& folder, const SegmentKey& key);

// The file is complete and durable when this returns. Throws store_full, store_unwritable.
void write_segment_file(const std::string& path, const SegmentHeader& header, const uint8_t* image);

class SegmentFile {
 public:
  // Throws store_invalid or store_newer; model_not_found never. `config` and `form` are what the file must have been made with.
  SegmentFile(const std::string& path, const SegmentKey& key, const ModelConfig& config, KvForm form);

  const SegmentHeader& header() const { return header_; }

  // Keys of one head with their scales, checked: a copy of K (and scales) of the run.
  struct Keys {
    Aligned<uint8_t> rows;  // [n_tokens, head_dim] in the stored form
    Aligned<float> scales;  // [n_tokens] or empty
  };
  Keys keys(int sparse_layer, int kv_head) const;

  // The whole image, checked. The mapping lives as long as somebody holds it.
  static SegmentImage map(SegmentFile file);

 private:
  const uint8_t* image() const { return file_.data() + image_offset_; }
  void check(int run, bool rest) const;

  MappedFile file_;
  SegmentHeader header_;
  size_t image_offset_ = 0;
};

}  // namespace sala
