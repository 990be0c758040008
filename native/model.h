// The model: weights, operator table, and the graph, written once. Embedding → layers → norm → head, over the rows of one or
// more sequences at a time. Not here: scheduling (scheduler.h), what a segment or a tail is (engine.h).
#pragma once

#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "native/context/sequence.h"
#include "native/context/view.h"
#include "native/model_config.h"
#include "native/weights.h"
#include "native/workspace.h"

namespace sala {

enum class Activations { fp32, int8 };

struct Model {
  ModelConfig config;
  Weights weights;
  const Ops& ops;
  Stream& stream;
  Workspace& workspace;
  Activations activations;

  // What others read of a segment: 8 bit, or fp32 with fp32 activations (never stored).
  KvForm kv_form() const { return activations == Activations::int8 ? KvForm::int8 : KvForm::f32; }
};

// Factor of a query's logits beside 1/√head_dim (attn_logit_log_scale): n_seen is the number of tokens that it could see without
// block selection, its own included.
float logit_scale(const ModelConfig& config, double n_seen);

// Throws invalid_argument unless all ids are of the vocabulary.
void check_token_ids(const ModelConfig& config, const std::vector<int32_t>& ids);

// New tokens of one sequence.
struct SequencePart {
  Sequence* sequence;
  const View* view;  // null: nothing in view
  std::vector<int32_t> tokens;
};

// The blocks that one sparse layer selected for the tokens of the first part.
struct SelectedBlocks {
  int layer;
  int width;
  std::vector<int32_t> ids;  // [n_tokens, num_key_value_heads, width], −1 padded
};

// One pass over the layers, a layer at a time, so that the caller may stop between two of them for as long as it likes. A part's
// rows do not depend on the parts beside it. The sequences must stay as they are until the pass is finished or dropped; a
// dropped pass leaves them unusable.
class Forward {
 public:
  Forward(const Model& model, std::vector<SequencePart> parts);

  int n_layers_done() const { return layer_; }
  bool done() const { return layer_ == model_.config.num_hidden_layers; }
  // Runs the next layer; after the last one the sequences have grown by their tokens.
  void step();

  // Residual stream of a part's rows after the layers that have run: [n_tokens, hidden_size].
  const float* hidden(int part) const { return h_.data() + size_t(first_row_[part]) * model_.config.hidden_size; }
  int n_tokens(int part) const { return int(parts_[part].tokens.size()); }

  // logits of rows first … first + n of a part: out [n, vocab_size]. The pass must be done.
  void logits(int part, int first, int n, float* out) const;

  // Queries of the next layer (sparse) for rows first … first + n of a part, biased, not scaled: out [n, heads, head_dim].
  void queries(int part, int first, int n, float* out) const;

  // logit_scale() of row `row` of a part: it sees its own sequence up to itself and the visible tokens of the view.
  float logit_scale(int part, int row) const;

  // Set to keep the blocks that sparse layers select for the first part.
  std::vector<SelectedBlocks>* selected = nullptr;

 private:
  void attention(const LayerWeights& weights);
  void mlp(const LayerWeights& weights);

  friend void lightning_attn_layer(Forward&, Workspace::Frame&, const LayerWeights&);
  friend void sparse_attn_layer(Forward&, Workspace::Frame&, const LayerWeights&);

  const Model& model_;
  std::vector<SequencePart> parts_;
  std::vector<int> first_row_;
  std::vector<int> n_past_;   // length of each sequence before this pass
  int n_rows_ = 0;
  int layer_ = 0;
  int sparse_layer_ = 0, lightning_layer_ = 0;  // the layer's number among those of its kind
  Aligned<float> h_;                            // [n_rows, hidden_size]: the residual stream
  Aligned<float> lightning_cos_, lightning_sin_, sparse_cos_, sparse_sin_;
};

}  // namespace sala
