#include "native/engine.h"

#include <algorithm>

#include "kernels/backend.h"
#include "native/jobs/encode.h"
#include "native/jobs/keep.h"
#include "native/jobs/open.h"
#include "native/jobs/read.h"
#include "native/jobs/tail_jobs.h"

namespace sala {

namespace {

// Raised when the bits of a segment change for the same model and text.
constexpr int kNumericsRevision = 1;

// Enough that a thread of another program has ten times the share of a core.
constexpr int kBackgroundNiceness = 10;

// A process that has the store and is ending writes what it has and is gone by then.
constexpr int kStoreWaitMs = 3000;

// More would be a mistake, and cost more than they bring.
constexpr int kMaxThreads = 1024;

// A segment that stays in memory while somebody has this. On the engine thread only.
std::shared_ptr<const int> hold_segment(SegmentTable& table, int handle) {
  auto held = std::make_unique<const int>(handle);
  table.retain(handle);
  return {held.release(), [&table](const int* released) {
            table.release(*released);
            delete released;
          }};
}

// A job of one step with a result.
template <class Result>
class OneStep : public ResultJob<Result> {
 public:
  OneStep(std::function<Result()> run, Completion<Result> done) : ResultJob<Result>(std::move(done)), run_(std::move(run)) {}
  bool step() override { return this->deliver(run_()); }

 private:
  std::function<Result()> run_;
};

std::optional<ReadingKeys> reading_keys(const ModelConfig& config, const EngineOptions& options) {
  if (!options.read_layer) return std::nullopt;
  const int layer = *options.read_layer;
  if (layer < 0 || layer >= config.num_hidden_layers || config.mixer_types[layer] != MixerType::sparse) {
    fail(ErrorCode::model_invalid, "sala.json: read.layer: expected a sparse layer of ", config.num_hidden_layers, ", found ", layer);
  }
  ReadingKeys reading;
  reading.sparse_layer = int(std::count(config.mixer_types.begin(), config.mixer_types.begin() + layer, MixerType::sparse));
  for (int head : options.read_heads) {
    if (head < 0 || head >= config.num_attention_heads) {
      fail(ErrorCode::model_invalid, "sala.json: read.heads: expected heads below ", config.num_attention_heads, ", found ", head);
    }
    const int kv_head = head / (config.num_attention_heads / config.num_key_value_heads);
    if (std::find(reading.kv_heads.begin(), reading.kv_heads.end(), kv_head) == reading.kv_heads.end()) reading.kv_heads.push_back(kv_head);
  }
  return reading;
}

}  // namespace

Engine::Engine(EngineOptions options) : options_(std::move(options)), memory_limit_(options_.max_memory_bytes) {
  ModelConfig config = load_model_config(options_.model_dir);
  const std::optional<ReadingKeys> reading = reading_keys(config, options_);
  if (options_.n_threads < 1 || options_.n_threads > kMaxThreads) {
    fail(ErrorCode::invalid_argument, "expected 1 to ", kMaxThreads, " threads, found ", options_.n_threads);
  }
  stream_ = std::make_unique<Stream>(options_.n_threads, [] { set_thread_niceness(kBackgroundNiceness); });
  Weights weights;
  {
    const Checkpoint checkpoint(options_.model_dir);
    weights = load_weights(config, checkpoint, memory_limit_, *stream_);
  }
  model_.reset(new Model{std::move(config), std::move(weights), best_backend(), *stream_, workspace_, options_.activations});
  // fp32 keys and values are for conformance: never stored.
  if (model_->kv_form() != KvForm::f32 && !options_.store_dir.empty()) open_store(reading);
  segments_ = std::make_unique<SegmentTable>(model_->config, model_->kv_form(), store_, reading);
  memory_.weight_bytes = model_->weights.bytes();
  const auto lower_thread = [] {
    set_thread_niceness(kBackgroundNiceness);
    Stream::enter_background();
  };
  // Requests of all sizes leave holes in the allocator's heap, which nobody else could use: 39 MB of them after 20 minutes of edits and questions.
  scheduler_ = std::make_unique<Scheduler>(lower_thread, release_free_memory);
}

Engine::~Engine() { scheduler_.reset(); }

void Engine::open_store(const std::optional<ReadingKeys>& reading) {
  StoreOptions options;
  options.reading = reading;
  options.max_bytes = options_.max_disk_bytes;
  options.lock_wait_ms = kStoreWaitMs;
  try {
    store_ = std::make_shared<Store>(system_files(), options_.store_dir, options_.store_identity, options);
  } catch (const EngineError& error) {
    store_failure_ = error;
  }
}

std::string Engine::numerics() const {
  return std::string(model_->ops.family) + "." + std::to_string(kNumericsRevision) + (model_->kv_form() == KvForm::int8 ? ".kv8" : ".kv32");
}

MemoryUse Engine::memory() const {
  std::lock_guard lock(memory_mutex_);
  return memory_;
}

void Engine::update_memory() {
  size_t tail_bytes = 0;
  for (const auto& [id, tail] : tails_) tail_bytes += tail.sequence ? tail.sequence->bytes() : 0;
  std::lock_guard lock(memory_mutex_);
  memory_.reading_key_bytes = segments_->reading_key_bytes();
  memory_.segment_bytes = segments_->image_bytes();
  memory_.n_segments = int(segments_->n_segments());
  memory_.tail_bytes = tail_bytes;
  memory_.n_tails = int(tails_.size());
}

void Engine::limit_threads(int n) {
  scheduler_->run_soon([this, n] { stream_->limit_threads(std::clamp(n, 1, stream_->n_threads())); });
}

const Sequence& Engine::prefix(int n_calls) const {
  if (!prefix_) fail(ErrorCode::invalid_argument, "expected a prefix before segments, tails and reading, found none");
  if (n_calls != prefix_call_) fail(ErrorCode::cancelled, "the prefix that this request was made for was replaced");
  return *prefix_;
}

Engine::JobPtr Engine::set_prefix(std::vector<int32_t> tokens, Completion<int> done) {
  auto job = std::make_shared<OneStep<int>>(
      [this, tokens = std::move(tokens), call = ++n_prefix_calls_] {
        if (tokens.empty()) fail(ErrorCode::invalid_argument, "expected a prefix with tokens, found none");
        // Composed context needs keys without positions.
        if (model_->config.attn_use_rope) {
          fail(ErrorCode::unsupported, "composed context: expected attn_use_rope false, found true (exact mode works)");
        }
        if (segments_->n_segments() > 0 && tokens != prefix_tokens_) {
          fail(ErrorCode::invalid_argument, "expected no segments of another prefix, found ", segments_->n_segments());
        }
        auto prefix = std::make_unique<Sequence>(model_->config, int(tokens.size()), false);
        std::vector<SequencePart> parts;
        parts.push_back({prefix.get(), nullptr, tokens});
        Forward forward(*model_, std::move(parts));
        while (!forward.done()) forward.step();
        prefix_ = std::move(prefix);
        prefix_tokens_ = tokens;
        prefix_call_ = call;
        return int(tokens.size());
      },
      std::move(done));
  scheduler_->add(Priority::prefill, job);
  return job;
}

Engine::JobPtr Engine::open_segments(std::vector<SegmentKey> keys, Completion<std::vector<int32_t>> done) {
  auto job = std::make_shared<OpenJob>(*this, std::move(keys), std::move(done));
  scheduler_->add(Priority::prefill, job);
  return job;
}

Engine::JobPtr Engine::encode_segments(std::vector<SegmentInput> segments, Priority priority, std::function<void(int)> on_segment,
                                       Completion<EncodeResult> done) {
  auto job = std::make_shared<EncodeJob>(*this, std::move(segments), std::move(on_segment), std::move(done));
  scheduler_->add(priority, job);
  return job;
}

void Engine::release_segments(std::vector<int32_t> handles) {
  scheduler_->run_soon([this, handles = std::move(handles)] {
    for (int32_t handle : handles) segments_->release(handle);
    update_memory();
  });
}

Engine::JobPtr Engine::remove_segments(std::vector<SegmentKey> keys, Completion<Store::Removed> done) {
  auto job = std::make_shared<OneStep<Store::Removed>>(
      [this, keys = std::move(keys)] { return store_ ? store_->remove(keys) : Store::Removed{}; }, std::move(done));
  scheduler_->add(Priority::control, job);  // in the order of the calls, as releasing is
  return job;
}

Engine::JobPtr Engine::keep_segments(Completion<KeepResult> done) {
  auto job = std::make_shared<KeepJob>(*this, std::move(done));
  scheduler_->add(Priority::edit, job);
  return job;
}

Engine::JobPtr Engine::read(ReadInput input, Priority priority, Completion<std::vector<float>> done) {
  auto job = std::make_shared<ReadJob>(*this, std::move(input), std::move(done));
  scheduler_->add(priority, job);
  return job;
}

Tail& Engine::tail(int id) {
  const auto at = tails_.find(id);
  if (at == tails_.end()) fail(ErrorCode::invalid_argument, "expected a tail that exists, found ", id);
  return at->second;
}

void Engine::make_tail(int id, const std::function<void(Tail&)>& make) {
  scheduler_->run_soon([this, id, make] {
    Tail& tail = tails_[id];
    try {
      make(tail);
    } catch (...) {
      tail = Tail{};
      tail.failed = std::current_exception();
    }
    update_memory();
  });
}

int Engine::create_tail(TailInput input) {
  const int id = next_tail_++;
  make_tail(id, [this, input = std::move(input), n_prefix_calls = n_prefix_calls_.load()](Tail& tail) {
    const Sequence& prefix = this->prefix(n_prefix_calls);
    if (input.dense_scope_tokens && *input.dense_scope_tokens < 0) {
      fail(ErrorCode::invalid_argument, "expected a dense scope of 0 tokens or more, found ", *input.dense_scope_tokens);
    }
    if (!input.hidden.empty() && input.hidden.size() != input.view.size()) {
      fail(ErrorCode::invalid_argument, "expected ", input.view.size(), " numbers of hidden tokens, found ", input.hidden.size());
    }
    std::vector<ViewSegment> view;
    std::vector<std::shared_ptr<const int>> held;
    for (size_t i = 0; i < input.view.size(); ++i) {
      view.push_back(segments_->view(input.view[i], input.hidden.empty() ? 0 : input.hidden[i]));
      held.push_back(hold_segment(*segments_, input.view[i]));
    }
    tail.view = std::make_shared<View>(model_->config, std::move(view), input.dense_scope_tokens,
                                       [this, held = std::move(held)](size_t i) { return segments_->image(*held[i]); });
    const int capacity = std::max(input.max_tokens, prefix.length() + 1);
    memory_limit_.require(Sequence::bytes_of(model_->config, capacity, false), "a request");
    if (input.starts_from == TailStart::empty) {
      tail.sequence.emplace(model_->config, capacity, false);
      tail.prefix_to_run = prefix_tokens_;
    } else {
      tail.sequence.emplace(prefix.fork(capacity));
    }
  });
  return id;
}

int Engine::create_exact_tail(int n_final, int max_tokens) {
  const int id = next_tail_++;
  make_tail(id, [this, n_final, max_tokens](Tail& tail) {
    if (n_final < 1) fail(ErrorCode::invalid_argument, "expected a prompt of at least one token, found ", n_final);
    memory_limit_.require(Sequence::bytes_of(model_->config, std::max(n_final, max_tokens), true), "a request in exact mode");
    tail.sequence.emplace(model_->config, std::max(n_final, max_tokens), true);
    tail.sequence->final_length = n_final;
  });
  return id;
}

int Engine::fork_tail(int from) {
  const int id = next_tail_++;
  make_tail(id, [this, from](Tail& copy) {
    Tail& tail = this->tail(from);
    if (tail.failed) std::rethrow_exception(tail.failed);
    if (tail.busy) fail(ErrorCode::invalid_argument, "expected an idle tail to fork, found a busy one");
    memory_limit_.require(tail.sequence->bytes(), "a copy of a request");
    copy.sequence.emplace(tail.sequence->fork(tail.sequence->capacity()));
    copy.view = tail.view;
    copy.prefix_to_run = tail.prefix_to_run;
    copy.last_logits = tail.last_logits;
    copy.pending = tail.pending;
    copy.tokens = tail.tokens;
  });
  return id;
}

void Engine::release_tail(int id) {
  scheduler_->run_soon([this, id] {
    tails_.erase(id);
    update_memory();
  });
}

Engine::JobPtr Engine::prefill(int tail, std::vector<int32_t> tokens, Priority priority, int n_logits, bool blocks,
                               Completion<PrefillResult> done) {
  auto job = std::make_shared<PrefillJob>(*this, tail, std::move(tokens), n_logits, blocks, std::move(done));
  scheduler_->add(priority, job);
  return job;
}

Engine::JobPtr Engine::decode(int tail, Priority priority, DecodeOptions options, Completion<DecodeResult> done) {
  auto job = std::make_shared<DecodeJob>(*this, tail, std::move(options), std::move(done));
  scheduler_->add(priority, job);
  return job;
}

}  // namespace sala
