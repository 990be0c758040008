// The addon's exports; extension/engine/addon.ts is their type. Arguments are checked here for what would be unsafe (types, sizes),
// their meaning in the engine.
#include <napi.h>

#include <utility>

#include "kernels/backend.h"
#include "native/binding/async.h"
#include "native/binding/store_object.h"
#include "native/binding/values.h"
#include "native/engine.h"
#include "native/platform.h"

namespace sala {

namespace {

std::vector<int32_t> int32_array(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    type_error(value.Env(), std::string(name) + ": expected an Int32Array");
  }
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::vector<std::vector<int32_t>> int32_arrays(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) type_error(value.Env(), std::string(name) + ": expected an array of Int32Arrays");
  std::vector<std::vector<int32_t>> list;
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) list.push_back(int32_array(array[i], name));
  return list;
}

// Empty if it is left out.
Napi::Function optional_function(const Napi::Value& value, const char* name) {
  if (value.IsUndefined()) return {};
  if (!value.IsFunction()) type_error(value.Env(), std::string(name) + ": expected a function");
  return value.As<Napi::Function>();
}

std::vector<int> integers(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) type_error(value.Env(), std::string(name) + ": expected an array of numbers");
  std::vector<int> list;
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) list.push_back(integer(array[i], name));
  return list;
}

TailStart tail_start(const Napi::Value& value) {
  const std::string name = text(value, "startsFrom");
  if (name == "prefix") return TailStart::prefix;
  if (name == "empty") return TailStart::empty;
  type_error(value.Env(), "startsFrom: expected 'prefix' or 'empty', found '" + name + "'");
}

Priority priority(const Napi::Value& value) {
  const std::string name = text(value, "priority");
  const std::pair<const char*, Priority> known[] = {{"completion", Priority::completion},
                                                    {"decode", Priority::decode},
                                                    {"prefill", Priority::prefill},
                                                    {"edit", Priority::edit},
                                                    {"ingest", Priority::ingest}};
  for (const auto& [text, priority] : known) {
    if (name == text) return priority;
  }
  type_error(value.Env(), "priority: expected completion, decode, prefill, edit or ingest, found '" + name + "'");
}

Napi::Value int32_value(Napi::Env env, const std::vector<int32_t>& list) {
  Napi::Int32Array array = Napi::Int32Array::New(env, list.size());
  std::copy(list.begin(), list.end(), array.Data());
  return array;
}

Napi::Value float_value(Napi::Env env, const std::vector<float>& list) {
  Napi::Float32Array array = Napi::Float32Array::New(env, list.size());
  std::copy(list.begin(), list.end(), array.Data());
  return array;
}

}  // namespace

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function init(Napi::Env env) {
    return DefineClass(env, "NativeEngine",
                       {InstanceAccessor<&EngineObject::guarded<&EngineObject::info>>("info"),
                        method<&EngineObject::set_prefix>("setPrefix"), method<&EngineObject::open_segments>("openSegments"),
                        method<&EngineObject::encode_segments>("encodeSegments"),
                        method<&EngineObject::release_segments>("releaseSegments"),
                        method<&EngineObject::remove_segments>("removeSegments"),
                        method<&EngineObject::keep_segments>("keepSegments"), method<&EngineObject::read>("read"),
                        method<&EngineObject::create_tail>("createTail"), method<&EngineObject::create_exact_tail>("createExactTail"),
                        method<&EngineObject::fork_tail>("forkTail"), method<&EngineObject::release_tail>("releaseTail"),
                        method<&EngineObject::prefill>("prefill"), method<&EngineObject::decode>("decode"),
                        method<&EngineObject::limit_threads>("limitThreads"),
                        method<&EngineObject::limit_memory>("limitMemory"),
                        method<&EngineObject::lower_ingest>("lowerIngest"), method<&EngineObject::memory>("memory"),
                        method<&EngineObject::close>("close")});
  }

  // Only load() makes one: with an external that holds the engine.
  explicit EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
    if (!info[0].IsExternal()) type_error(info.Env(), "expected load() to make an engine");
    engine_ = *info[0].As<Napi::External<std::shared_ptr<Engine>>>().Data();
    napi_add_env_cleanup_hook(Env(), environment_ends, this);
  }
  ~EngineObject() override {
    if (!environment_ended_) napi_remove_env_cleanup_hook(Env(), environment_ends, this);
  }

 private:
  // A worker thread is ended with requests under way: the engine thread must be gone before the doors that it uses are freed,
  // which is after the hooks. Waits for the end of one step.
  static void environment_ends(void* self) {
    auto* object = static_cast<EngineObject*>(self);
    object->environment_ended_ = true;
    object->engine_.reset();
  }

  template <Napi::Value (EngineObject::*body)(const Napi::CallbackInfo&)>
  Napi::Value guarded(const Napi::CallbackInfo& call) {
    return guarded_call(call.Env(), [&] { return (this->*body)(call); });
  }
  template <Napi::Value (EngineObject::*body)(const Napi::CallbackInfo&)>
  static Napi::ClassPropertyDescriptor<EngineObject> method(const char* name) {
    return InstanceMethod<&EngineObject::guarded<body>>(name);
  }

  // To be asked for when all arguments have been read: reading them may run JavaScript, which may close the engine.
  Engine& engine(Napi::Env env) const {
    if (!engine_) throw js_error(env, ErrorCode::engine_unreachable, "expected an open engine, found a closed one");
    return *engine_;
  }

  static Napi::Object job_object(Napi::Env env, const std::shared_ptr<Settler>& settler, const Engine::JobPtr& job) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("done", settler->promise());
    object.Set("cancel", Napi::Function::New(env, [job = std::weak_ptr<Job>(job)](const Napi::CallbackInfo&) {
                 if (const auto unfinished = job.lock()) unfinished->cancel();
               }));
    return object;
  }

  Napi::Value info(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const Model& model = engine(env).model();
    const ModelConfig& config = model.config;
    Napi::Object info = Napi::Object::New(env);
    info.Set("vocabSize", config.vocab_size);
    info.Set("hiddenSize", config.hidden_size);
    info.Set("nLayers", config.num_hidden_layers);
    Napi::Array sparse = Napi::Array::New(env);
    for (int i = 0; i < config.num_hidden_layers; ++i) {
      if (config.mixer_types[i] == MixerType::sparse) sparse.Set(sparse.Length(), i);
    }
    info.Set("sparseLayers", sparse);
    info.Set("nKvHeads", config.num_key_value_heads);
    info.Set("headDim", config.head_dim);
    Napi::Array eos = Napi::Array::New(env);
    for (int32_t id : config.eos_token_ids) eos.Set(eos.Length(), id);
    info.Set("eosTokenIds", eos);
    info.Set("backend", model.ops.name);
    info.Set("numerics", engine_->numerics());
    info.Set("weightBytes", double(model.weights.bytes()));
    // Width of a token's list of selected blocks in exact mode; 0: no selection.
    info.Set("exactBlocks", config.sparse_config ? config.sparse_config->n_selected() : 0);
    return info;
  }

  Napi::Value set_prefix(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto tokens = int32_array(call[0], "tokens");
    Engine& engine = this->engine(env);
    const auto settler = Settler::create(Value());
    engine.set_prefix(std::move(tokens), [settler](std::exception_ptr error, int) {
      settler->settle(error, [](Napi::Env env) { return env.Undefined(); });
    });
    return settler->promise();
  }

  Napi::Value open_segments(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto keys = segment_keys(call[0]);
    Engine& engine = this->engine(env);
    const auto settler = Settler::create(Value());
    engine.open_segments(std::move(keys), [settler](std::exception_ptr error, std::vector<int32_t> handles) {
      settler->settle(error, [handles = std::move(handles)](Napi::Env env) { return int32_value(env, handles); });
    });
    return settler->promise();
  }

  Napi::Value encode_segments(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    if (!call[0].IsArray()) type_error(env, "segments: expected an array");
    const auto array = call[0].As<Napi::Array>();
    std::vector<SegmentInput> segments;
    for (uint32_t i = 0; i < array.Length(); ++i) {
      const Napi::Object segment = object(array[i], "segments");
      segments.push_back({parse_segment_key(text(segment.Get("key"), "key")), int32_array(segment.Get("tokens"), "tokens"),
                          integer(segment.Get("headerTokens"), "headerTokens")});
    }
    const Priority wanted = priority(call[1]);
    const Napi::Function callback = optional_function(call[2], "onSegment");
    Engine& engine = this->engine(env);
    const auto settler = Settler::create(Value(), callback);
    std::function<void(int)> on_segment;
    if (!callback.IsEmpty()) on_segment = [settler](int index) { settler->call_back(index); };
    const auto job = engine.encode_segments(
        std::move(segments), wanted, std::move(on_segment), [settler](std::exception_ptr error, EncodeResult result) {
          settler->settle(error, [result = std::move(result)](Napi::Env env) {
            Napi::Object object = Napi::Object::New(env);
            object.Set("handles", int32_value(env, result.handles));
            object.Set("encodedTokens", double(result.n_encoded_tokens));
            object.Set("seconds", result.seconds);
            if (result.store_failure) {
              object.Set("storeFailure", js_error(env, *result.store_failure).Value());
            }
            return object;
          });
        });
    return job_object(env, settler, job);
  }

  Napi::Value release_segments(const Napi::CallbackInfo& call) {
    auto handles = int32_array(call[0], "handles");
    engine(call.Env()).release_segments(std::move(handles));
    return call.Env().Undefined();
  }

  Napi::Value remove_segments(const Napi::CallbackInfo& call) {
    auto keys = segment_keys(call[0]);
    Engine& engine = this->engine(call.Env());
    const auto settler = Settler::create(Value());
    engine.remove_segments(std::move(keys), [settler](std::exception_ptr error, Store::Removed removed) {
      settler->settle(error, [removed](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("segments", double(removed.n_segments));
        object.Set("bytes", double(removed.bytes));
        return object;
      });
    });
    return settler->promise();
  }

  Napi::Value keep_segments(const Napi::CallbackInfo& call) {
    Engine& engine = this->engine(call.Env());
    const auto settler = Settler::create(Value());
    engine.keep_segments([settler](std::exception_ptr error, KeepResult result) {
      settler->settle(error, [result = std::move(result)](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("neededBytes", double(result.needed_bytes));
        if (result.failure) object.Set("failure", js_error(env, *result.failure).Value());
        return object;
      });
    });
    return settler->promise();
  }

  Napi::Value read(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const Napi::Object from = object(call[0], "input");
    ReadInput input;
    input.tail = int32_array(from.Get("tail"), "tail");
    const std::vector<int> span = integers(from.Get("span"), "span");
    if (span.size() != 2) type_error(env, "span: expected two numbers");
    input.span_begin = span[0];
    input.span_end = span[1];
    input.segments = int32_array(from.Get("segments"), "segments");
    input.layer = integer(from.Get("layer"), "layer");
    input.heads = integers(from.Get("heads"), "heads");
    input.starts_from = tail_start(from.Get("startsFrom"));
    const Priority wanted = from.Get("priority").IsUndefined() ? Priority::prefill : priority(from.Get("priority"));
    Engine& engine = this->engine(env);
    const auto settler = Settler::create(Value());
    const auto job = engine.read(std::move(input), wanted, [settler](std::exception_ptr error, std::vector<float> shares) {
      settler->settle(error, [shares = std::move(shares)](Napi::Env env) { return float_value(env, shares); });
    });
    return job_object(env, settler, job);
  }

  Napi::Value create_tail(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const Napi::Object from = object(call[0], "input");
    TailInput input;
    input.view = int32_array(from.Get("view"), "view");
    if (!from.Get("hidden").IsUndefined()) input.hidden = int32_array(from.Get("hidden"), "hidden");
    input.starts_from = tail_start(from.Get("startsFrom"));
    if (!from.Get("denseScopeTokens").IsUndefined()) input.dense_scope_tokens = integer(from.Get("denseScopeTokens"), "denseScopeTokens");
    input.max_tokens = integer(from.Get("maxTokens"), "maxTokens");
    return Napi::Number::New(env, engine(env).create_tail(std::move(input)));
  }

  Napi::Value create_exact_tail(const Napi::CallbackInfo& call) {
    return Napi::Number::New(call.Env(),
                             engine(call.Env()).create_exact_tail(integer(call[0], "finalTokens"), integer(call[1], "maxTokens")));
  }

  Napi::Value fork_tail(const Napi::CallbackInfo& call) {
    return Napi::Number::New(call.Env(), engine(call.Env()).fork_tail(integer(call[0], "tail")));
  }

  Napi::Value release_tail(const Napi::CallbackInfo& call) {
    engine(call.Env()).release_tail(integer(call[0], "tail"));
    return call.Env().Undefined();
  }

  Napi::Value prefill(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const int tail = integer(call[0], "tail");
    auto tokens = int32_array(call[1], "tokens");
    const Napi::Object options = object(call[2], "options");
    const Priority wanted = priority(options.Get("priority"));
    const int n_logits = options.Get("logits").IsUndefined() ? 0 : integer(options.Get("logits"), "logits");
    const bool blocks = options.Get("blocks").ToBoolean();
    Engine& engine = this->engine(env);
    const auto settler = Settler::create(Value());
    const auto job =
        engine.prefill(tail, std::move(tokens), wanted, n_logits, blocks, [settler](std::exception_ptr error, PrefillResult result) {
          settler->settle(error, [result = std::move(result)](Napi::Env env) {
            Napi::Object object = Napi::Object::New(env);
            object.Set("logits", float_value(env, result.logits));
            Napi::Array blocks = Napi::Array::New(env);
            for (const SelectedBlocks& selected : result.blocks) {
              Napi::Object layer = Napi::Object::New(env);
              layer.Set("layer", selected.layer);
              layer.Set("width", selected.width);
              layer.Set("data", int32_value(env, selected.ids));
              blocks.Set(blocks.Length(), layer);
            }
            object.Set("blocks", blocks);
            object.Set("seconds", result.seconds);
            return object;
          });
        });
    return job_object(env, settler, job);
  }

  Napi::Value decode(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const int tail = integer(call[0], "tail");
    const Napi::Object from = object(call[1], "options");
    const Priority wanted = priority(from.Get("priority"));
    DecodeOptions options;
    options.max_tokens = integer(from.Get("maxTokens"), "maxTokens");
    options.stop_ids = int32_array(from.Get("stopIds"), "stopIds");
    options.logits = from.Get("logits").ToBoolean();
    if (!from.Get("speculate").IsUndefined()) options.speculate = from.Get("speculate").ToBoolean();
    if (!from.Get("drafts").IsUndefined()) options.drafts = int32_arrays(from.Get("drafts"), "drafts");
    const Napi::Function callback = optional_function(from.Get("onToken"), "onToken");
    Engine& engine = this->engine(env);
    const auto settler = Settler::create(Value(), callback);
    if (!callback.IsEmpty()) options.on_token = [settler](int32_t id) { settler->call_back(id); };
    const auto job = engine.decode(tail, wanted, std::move(options), [settler](std::exception_ptr error, DecodeResult result) {
      settler->settle(error, [result = std::move(result)](Napi::Env env) {
        static const char* const stops[] = {"stop_id", "max_tokens", "context_full"};
        Napi::Object object = Napi::Object::New(env);
        object.Set("ids", int32_value(env, result.ids));
        object.Set("logits", float_value(env, result.logits));
        object.Set("stop", stops[int(result.stop)]);
        object.Set("proposed", result.n_proposed);
        object.Set("accepted", result.n_accepted);
        object.Set("seconds", result.seconds);
        return object;
      });
    });
    return job_object(env, settler, job);
  }

  Napi::Value limit_threads(const Napi::CallbackInfo& call) {
    engine(call.Env()).limit_threads(integer(call[0], "n"));
    return call.Env().Undefined();
  }

  Napi::Value limit_memory(const Napi::CallbackInfo& call) {
    engine(call.Env()).limit_memory(byte_count(call[0], "bytes"));
    return call.Env().Undefined();
  }

  Napi::Value lower_ingest(const Napi::CallbackInfo& call) {
    engine(call.Env()).lower_ingest(call[0].ToBoolean());
    return call.Env().Undefined();
  }

  Napi::Value memory(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const MemoryUse use = engine(env).memory();
    Napi::Object object = Napi::Object::New(env);
    object.Set("weightBytes", double(use.weight_bytes));
    object.Set("readingKeyBytes", double(use.reading_key_bytes));
    object.Set("segmentBytes", double(use.segment_bytes));
    object.Set("tailBytes", double(use.tail_bytes));
    object.Set("nSegments", use.n_segments);
    object.Set("nTails", use.n_tails);
    return object;
  }

  Napi::Value close(const Napi::CallbackInfo& call) {
    // The engine thread may be within a step: wait for it off the JavaScript thread.
    auto* task = new PoolTask<bool>(
        call.Env(),
        [engine = std::exchange(engine_, nullptr)]() mutable {
          engine.reset();
          return true;
        },
        [](Napi::Env env, bool) { return env.Undefined(); });
    const Napi::Promise promise = task->promise();
    task->Queue();
    return promise;
  }

  std::shared_ptr<Engine> engine_;  // null: closed
  bool environment_ended_ = false;
};

namespace {

struct Constructors {
  Napi::FunctionReference engine, store;
};

Napi::Value load(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const Napi::Object from = object(call[0], "options");
  EngineOptions options;
  options.model_dir = text(from.Get("modelDir"), "modelDir");
  const std::string activations = text(from.Get("activations"), "activations");
  if (activations != "fp32" && activations != "int8") type_error(env, "activations: expected fp32 or int8, found '" + activations + "'");
  options.activations = activations == "fp32" ? Activations::fp32 : Activations::int8;
  options.n_threads = integer(from.Get("threads"), "threads");
  if (!from.Get("maxMemoryBytes").IsUndefined()) options.max_memory_bytes = byte_count(from.Get("maxMemoryBytes"), "maxMemoryBytes");
  if (!from.Get("store").IsUndefined()) {
    const Napi::Object store = object(from.Get("store"), "store");
    options.store_dir = text(store.Get("dir"), "store.dir");
    options.store_identity = text(store.Get("identity"), "store.identity");
    if (!store.Get("maxBytes").IsUndefined()) options.max_disk_bytes = byte_count(store.Get("maxBytes"), "store.maxBytes");
  }
  if (!from.Get("reading").IsUndefined()) {
    const Napi::Object reading = object(from.Get("reading"), "reading");
    options.read_layer = integer(reading.Get("layer"), "reading.layer");
    options.read_heads = integers(reading.Get("heads"), "reading.heads");
  }
  auto* constructors = env.GetInstanceData<Constructors>();
  auto* task = new PoolTask<std::shared_ptr<Engine>>(
      env, [options = std::move(options)] { return std::make_shared<Engine>(options); },
      [constructors](Napi::Env env, std::shared_ptr<Engine> engine) -> Napi::Value {
        Napi::Object object = constructors->engine.New({Napi::External<std::shared_ptr<Engine>>::New(env, &engine)});
        if (engine->store()) {
          const auto layout_of = [config = engine->model().config, form = engine->model().kv_form()](int n_tokens) { return segment_layout(config, form, n_tokens); };
          StoreOfModel store{engine->store(), layout_of};
          object.Set("store", constructors->store.New({Napi::External<StoreOfModel>::New(env, &store)}));
        }
        if (engine->store_failure()) object.Set("storeFailure", js_error(env, *engine->store_failure()).Value());
        return object;
      });
  const Napi::Promise promise = task->promise();
  task->Queue();
  return promise;
}

Napi::Value backend_names(const Napi::CallbackInfo& call) {
  Napi::Array names = Napi::Array::New(call.Env());
  for (const Ops* ops : backends()) names.Set(names.Length(), ops->name);
  return names;
}

Napi::Value error_codes(const Napi::CallbackInfo& call) {
  Napi::Array names = Napi::Array::New(call.Env());
  for (int code = 0; code <= int(ErrorCode::internal); ++code) names.Set(names.Length(), error_code_name(ErrorCode(code)));
  return names;
}

Napi::Value cores(const Napi::CallbackInfo& call) { return Napi::Number::New(call.Env(), physical_cores()); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Constructors{Napi::Persistent(EngineObject::init(env)), Napi::Persistent(StoreObject::init(env))});
  exports.Set("load", Napi::Function::New<load>(env));
  exports.Set("backends", Napi::Function::New<backend_names>(env));
  exports.Set("errorCodes", Napi::Function::New<error_codes>(env));
  exports.Set("physicalCores", Napi::Function::New<cores>(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(sala, init)

}  // namespace sala
