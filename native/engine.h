// The boundary of the native side: token ids in, token ids out. An Engine is a loaded model with its segments and tails; all of
// its state belongs to one thread (scheduler.h), calls only queue work and return at once. Callbacks come on that thread.
// Not here: JavaScript (binding/), texts, hashes, files of a workspace.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "native/context/segment_table.h"
#include "native/model.h"
#include "native/scheduler.h"
#include "native/store/store.h"

namespace sala {

struct EngineOptions {
  std::string model_dir;
  Activations activations = Activations::int8;
  int n_threads = 1;
  uint64_t max_memory_bytes = 0;  // private memory of the process at most; 0: no limit
  std::string store_dir;  // empty: nothing is kept on disk
  std::string store_identity;  // of the model: a store of another one is begun anew
  uint64_t max_disk_bytes = StoreOptions{}.max_bytes;
  // Keys of this layer and of the K/V heads of these query heads stay resident for reading.
  std::optional<int> read_layer;
  std::vector<int> read_heads;
};

// What a call delivers: an error, or a result.
template <class Result>
using Completion = std::function<void(std::exception_ptr, Result)>;

struct SegmentInput {
  SegmentKey key;
  std::vector<int32_t> tokens;  // header and text, without the prefix
  int n_header_tokens = 0;
};

struct EncodeResult {
  std::vector<int32_t> handles;
  int64_t n_encoded_tokens = 0;
  double seconds = 0;
  std::optional<EngineError> store_failure;  // the first one; the segments are in memory all the same
};

// What the store had refused, once it was tried again.
struct KeepResult {
  uint64_t needed_bytes = 0;            // room in the store for what it refuses still; 0: it has all
  std::optional<EngineError> failure;   // why it refuses it
};

enum class TailStart { prefix, empty };

struct ReadInput {
  std::vector<int32_t> tail;  // the turn, without the prefix
  int span_begin = 0, span_end = 0;
  std::vector<int32_t> segments;
  int layer = 0;
  std::vector<int> heads;
  TailStart starts_from = TailStart::prefix;
};

struct TailInput {
  std::vector<int32_t> view;
  std::vector<int32_t> hidden;  // of each of those; empty: none
  TailStart starts_from = TailStart::prefix;
  std::optional<int> dense_scope_tokens;
  int max_tokens = 0;           // prefix included
};

struct PrefillResult {
  std::vector<float> logits;    // [n, vocab_size]
  std::vector<SelectedBlocks> blocks;
  double seconds = 0;
};

struct DecodeOptions {
  int max_tokens = 0;
  std::vector<int32_t> stop_ids;
  bool logits = false;
  // Tokens that earlier ones of the tail or a draft suggest are verified several in a step. The ids are those of plain decoding.
  bool speculate = true;
  std::vector<std::vector<int32_t>> drafts;  // texts that may be quoted
  std::function<void(int32_t)> on_token;
};

enum class DecodeStop { stop_id, max_tokens, context_full };

struct DecodeResult {
  std::vector<int32_t> ids;
  std::vector<float> logits;    // [ids, vocab_size]: those that chose each
  DecodeStop stop = DecodeStop::max_tokens;
  int n_proposed = 0, n_accepted = 0;  // by speculation: tokens run on trial, and those of them that are in `ids`
  double seconds = 0;
};

struct MemoryUse {
  size_t weight_bytes = 0, reading_key_bytes = 0, segment_bytes = 0, tail_bytes = 0;
  int n_segments = 0, n_tails = 0;
};

// One request's exact sequence and what it needs to go on.
struct Tail {
  std::optional<Sequence> sequence;
  std::shared_ptr<View> view;
  std::vector<int32_t> prefix_to_run;  // P, where the tail starts from nothing and has not begun yet
  std::vector<float> last_logits;      // of the last token that was run
  std::optional<int32_t> pending;      // decoded last, not run yet
  std::vector<int32_t> tokens;         // what was run or decoded here, `pending` included: for speculation
  bool busy = false;                   // a job works on it
  std::exception_ptr failed;           // why it is unusable: it could not be made, or a job on it was broken off
};

class Engine {
 public:
  // Loads the model: seconds. Throws model_not_found, model_invalid, unsupported, out_of_memory, invalid_argument. Without a store
  // that can be used it goes on in memory alone: store_failure().
  explicit Engine(EngineOptions options);
  ~Engine();  // cancels what is not finished

  // Null: nothing is kept. It commits when its user says so.
  const std::shared_ptr<Store>& store() const { return store_; }
  // Why there is no store though one was wanted.
  const std::optional<EngineError>& store_failure() const { return store_failure_; }

  const Model& model() const { return *model_; }
  std::string numerics() const;  // "<family>.<revision>.<stored form>": what a segment's bytes depend on beside model and text
  MemoryUse memory() const;
  void limit_threads(int n);
  // From the next allocation that counts on; what is in memory stays. 0: no limit.
  void limit_memory(uint64_t max_bytes) { memory_limit_.set(max_bytes); }
  // Reading in the background leaves the processor to whoever else wants it. Answers and completions never do.
  void lower_ingest(bool on) { scheduler_->lower_ingest(on); }

  using JobPtr = std::shared_ptr<Job>;

  // P: run once, its end state is where segments start. Refused while there are segments of another prefix, since addresses and
  // views would mix; requests made before it and not finished fail.
  JobPtr set_prefix(std::vector<int32_t> tokens, Completion<int> done);
  // Handles of what is in memory or in the store, −1 for the rest.
  JobPtr open_segments(std::vector<SegmentKey> keys, Completion<std::vector<int32_t>> done);
  // on_segment(i): segment i is in memory and, where there is a store that takes it, in it.
  JobPtr encode_segments(std::vector<SegmentInput> segments, Priority priority, std::function<void(int)> on_segment,
                         Completion<EncodeResult> done);
  void release_segments(std::vector<int32_t> handles);
  // Removes segments from the store but for those that are in memory, after all that was released before.
  JobPtr remove_segments(std::vector<SegmentKey> keys, Completion<Store::Removed> done);
  // Tries again what the store refused.
  JobPtr keep_segments(Completion<KeepResult> done);
  // Share of each segment, in order; headers are left out.
  JobPtr read(ReadInput input, Priority priority, Completion<std::vector<float>> done);

  // Tails are named by numbers that are valid at once; what was wrong with their making is said by the first prefill. A request
  // whose tail is released meanwhile is cancelled.
  int create_tail(TailInput input);
  // Exact mode: one sequence with reference semantics; n_final: length of the prompt, which decides dense or sparse.
  int create_exact_tail(int n_final, int max_tokens);
  int fork_tail(int tail);
  void release_tail(int tail);
  JobPtr prefill(int tail, std::vector<int32_t> tokens, Priority priority, int n_logits, bool blocks, Completion<PrefillResult> done);
  JobPtr decode(int tail, Priority priority, DecodeOptions options, Completion<DecodeResult> done);

 private:
  friend class OpenJob;
  friend class EncodeJob;
  friend class KeepJob;
  friend class ReadJob;
  friend class PrefillJob;
  friend class DecodeJob;

  void open_store(const std::optional<ReadingKeys>& reading);
  void make_tail(int id, const std::function<void(Tail&)>& make);
  Tail& tail(int id);
  void update_memory();
  // P, for a request that was made when set_prefix() had been called n_calls times.
  const Sequence& prefix(int n_calls) const;

  EngineOptions options_;
  MemoryLimit memory_limit_;
  std::unique_ptr<Stream> stream_;
  Workspace workspace_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<Store> store_;
  std::optional<EngineError> store_failure_;
  std::unique_ptr<SegmentTable> segments_;
  std::unique_ptr<Sequence> prefix_;
  std::vector<int32_t> prefix_tokens_;
  int prefix_call_ = 0;                    // the call that prefix_ is from
  std::atomic<int> n_prefix_calls_{0};
  std::map<int, Tail> tails_;
  std::atomic<int> next_tail_{0};
  std::atomic<int> thread_limit_{0};
  mutable std::mutex memory_mutex_;
  MemoryUse memory_;
  std::unique_ptr<Scheduler> scheduler_;  // last: its thread uses all of the above
};

}  // namespace sala
