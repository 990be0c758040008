// One sequence of tokens and all that it carries from one call to the next: its own keys and values in the sparse layers
// (fp32, never rounded), the recurrent state of the lightning layers. The prefix, a segment being encoded, a tail and an exact
// run are all sequences. A copy is a snapshot.
#pragma once

#include <cstdint>
#include <vector>

#include "native/context/turned_keys.h"
#include "native/model_config.h"

namespace sala {

// Own rows of one sparse layer.
struct OwnKv {
  TurnedKeys k;
  Aligned<float> v;     // row i of head g at g * k.head_stride() + i * head_dim
  TurnedKeys k_scored;  // keys before rotation, for block selection, where rotation is on and use_nope asks for it
  TurnedKeys k1, k2;    // compressed keys, one a window (exact mode)
};

// Recurrent state of one lightning layer, see LightningState.
struct OwnRecurrence {
  Aligned<float> s, k_rows, v_rows;
};

class Sequence {
 public:
  // capacity: most tokens it will hold; reserved at once. exact: compressed keys are kept, for block selection within it.
  // Throws out_of_memory, for a large one before anything is taken from the system.
  Sequence(const ModelConfig& config, int capacity, bool exact);

  // A copy with room for `capacity` tokens (≥ length).
  Sequence fork(int capacity) const;
  // As fork(capacity()), into this sequence's memory: for a pool that encodes many segments.
  void assign(const Sequence& from);

  const ModelConfig& config() const { return *config_; }
  int length() const { return length_; }
  int capacity() const { return capacity_; }
  bool exact() const { return exact_; }
  size_t bytes() const;
  // What bytes() of such a sequence would be.
  static size_t bytes_of(const ModelConfig& config, int capacity, bool exact);

  OwnKv& kv(int sparse_layer) { return kv_[sparse_layer]; }
  const OwnKv& kv(int sparse_layer) const { return kv_[sparse_layer]; }

  // The state of a lightning layer (counted among the lightning layers) for one operator call.
  LightningState recurrence(int lightning_layer);

  // Called when the last layer has run over n new tokens.
  void advance(int n_tokens) { length_ += n_tokens; }

  // Takes the last n tokens back, as if they had never been run. They must not have completed a lightning chunk: its state has
  // taken them in.
  void drop_last(int n_tokens);
  // Most tokens that may be run now so that all but the first can be dropped again.
  int n_droppable() const;

  // Blocks are selected (exact mode) for a call that ends at this length; set by whoever knows the prompt's final length.
  int final_length = 0;

 private:
  const ModelConfig* config_;
  int capacity_, length_ = 0;
  bool exact_;
  std::vector<OwnKv> kv_;
  std::vector<OwnRecurrence> recurrence_;
};

}  // namespace sala
