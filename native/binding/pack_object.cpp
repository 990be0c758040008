#include "native/binding/pack_object.h"

#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "native/binding/async.h"
#include "native/binding/values.h"
#include "native/store/pack.h"

namespace sala {

namespace {

// Of a pack, done at once while others wait.
constexpr uint64_t kStepBytes = uint64_t(8) << 20;

// One call at a time, whichever thread of the pool it runs on; none once it is closed.
template <class T>
class Guarded {
 public:
  template <class... Parts>
  explicit Guarded(Parts&&... parts) : value_(std::in_place, std::forward<Parts>(parts)...) {}

  template <class Use>
  auto use(const Use& use) {
    std::lock_guard lock(mutex_);
    if (!value_) fail(ErrorCode::invalid_argument, "expected an open pack, found a closed one");
    return use(*value_);
  }
  void close() {
    std::lock_guard lock(mutex_);
    value_.reset();
  }

 private:
  std::mutex mutex_;
  std::optional<T> value_;
};

Napi::Function method(Napi::Env env, std::function<Napi::Value(const Napi::CallbackInfo&)> body) {
  return Napi::Function::New(env, [body = std::move(body)](const Napi::CallbackInfo& call) { return guarded_call(call.Env(), [&] { return body(call); }); });
}

std::vector<int32_t> tokens_of(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) type_error(value.Env(), std::string(name) + ": expected an Int32Array");
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

Napi::Value tokens_value(Napi::Env env, const std::vector<int32_t>& tokens) {
  Napi::Int32Array array = Napi::Int32Array::New(env, tokens.size());
  std::copy(tokens.begin(), tokens.end(), array.Data());
  return array;
}

// ---- writing --------------------------------------------------------------------------------------------------------

PackAbout about_of(const Napi::Object& from) {
  PackAbout about;
  about.identity = text(from.Get("identity"), "about.identity");
  about.numerics = text(from.Get("numerics"), "about.numerics");
  about.prefix = tokens_of(from.Get("prefix"), "about.prefix");
  about.cutter_version = uint32_t(integer(from.Get("cutterVersion"), "about.cutterVersion"));
  return about;
}

std::vector<PackInput> inputs_of(const Napi::Value& value) {
  if (!value.IsArray()) type_error(value.Env(), "files: expected an array");
  const auto array = value.As<Napi::Array>();
  std::vector<PackInput> inputs;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    Napi::HandleScope scope(value.Env());
    const Napi::Object file = object(array[i], "files");
    PackInput input;
    input.path = text(file.Get("path"), "path");
    if (input.path.empty() || input.path.find('\0') != std::string::npos) type_error(value.Env(), "path: expected a path");
    input.key = parse_segment_key(text(file.Get("fileKey"), "fileKey"));
    input.segments = segment_keys(file.Get("segments"));
    inputs.push_back(std::move(input));
  }
  return inputs;
}

Napi::Value writer_object(Napi::Env env, const std::shared_ptr<Guarded<PackWriter>>& writer) {
  Napi::Object object = Napi::Object::New(env);
  writer->use([&](const PackWriter& pack) {
    double n_tokens = 0;
    for (const PackedSegment& segment : pack.head().segments) n_tokens += segment.layout.n_tokens;
    object.Set("bytes", double(pack.bytes()));
    object.Set("nSegments", double(pack.head().segments.size()));
    object.Set("nFiles", double(pack.head().files.size()));
    object.Set("nTokens", n_tokens);
  });
  object.Set("write", method(env, [writer](const Napi::CallbackInfo& call) {
               struct Step {
                 bool done;
                 uint64_t written;
               };
               return on_pool<Step>(
                   call.Env(), [writer] { return writer->use([](PackWriter& pack) { return Step{!pack.write(kStepBytes), pack.written()}; }); },
                   [](Napi::Env env, Step step) {
                     Napi::Object object = Napi::Object::New(env);
                     object.Set("done", step.done);
                     object.Set("written", double(step.written));
                     return object;
                   });
             }));
  object.Set("finish", method(env, [writer](const Napi::CallbackInfo& call) {
               return on_pool(call.Env(), std::function<void()>([writer] { writer->use([](PackWriter& pack) { pack.finish(); }); }));
             }));
  object.Set("close", method(env, [writer](const Napi::CallbackInfo& call) { return on_pool(call.Env(), std::function<void()>([writer] { writer->close(); })); }));
  return object;
}

// ---- reading --------------------------------------------------------------------------------------------------------

// A pack under way into a store. What it has brought there stays acquired until it is closed: room for later segments must not be made
// by evicting earlier ones.
class PackImport {
 public:
  PackImport(const std::string& path, std::shared_ptr<Store> store, const std::function<SegmentLayout(int)>& layout_of)
      : reader_(system_files(), path), store_(std::move(store)), layout_of_(layout_of) {}
  ~PackImport() {
    for (const size_t index : acquired_) store_->release(reader_.head().segments[index].key);
  }
  PackImport(const PackImport&) = delete;

  PackReader& reader() { return reader_; }

  // Only once it is known of which model the pack is, so that this is said first.
  std::vector<PackReader::Segment> read() {
    if (!layouts_fit_) reader_.require_layouts(layout_of_);
    layouts_fit_ = true;
    return reader_.read(kStepBytes);
  }

  struct Added {
    uint64_t needed_bytes = 0;  // room for those that are not there yet
    std::optional<EngineError> failure;
  };
  // Those that the store has not taken can be tried again, until the next ones are read.
  Added add(const std::vector<int32_t>& indices) {
    Added added;
    for (const int32_t given : indices) {
      const size_t index = size_t(given);
      if (acquired_.count(index)) continue;
      try {
        if (!added.failure) {
          reader_.add_to(*store_, index);
          acquired_.insert(index);
          continue;
        }
      } catch (const EngineError& error) {
        if (error.code() != ErrorCode::store_full && error.code() != ErrorCode::store_unwritable) throw;
        added.failure = error;
      }
      added.needed_bytes += store_->needed_bytes(reader_.head().segments[index].layout);
    }
    return added;
  }

 private:
  PackReader reader_;
  std::shared_ptr<Store> store_;
  std::function<SegmentLayout(int)> layout_of_;
  bool layouts_fit_ = false;
  std::set<size_t> acquired_;
};

using SharedImport = std::shared_ptr<Guarded<PackImport>>;

Napi::Object head_object(Napi::Env env, const PackHead& head) {
  Napi::Object about = Napi::Object::New(env);
  about.Set("identity", head.about.identity);
  about.Set("numerics", head.about.numerics);
  about.Set("prefix", tokens_value(env, head.about.prefix));
  about.Set("cutterVersion", double(head.about.cutter_version));
  Napi::Array segments = Napi::Array::New(env, head.segments.size());
  for (size_t i = 0; i < head.segments.size(); ++i) {
    Napi::HandleScope scope(env);
    Napi::Object segment = Napi::Object::New(env);
    segment.Set("key", segment_key_text(head.segments[i].key));
    segment.Set("headerTokens", head.segments[i].n_header_tokens);
    segments.Set(uint32_t(i), segment);
  }
  Napi::Array files = Napi::Array::New(env, head.files.size());
  for (size_t i = 0; i < head.files.size(); ++i) {
    Napi::HandleScope scope(env);
    const PackedFile& packed = head.files[i];
    Napi::Object file = Napi::Object::New(env);
    file.Set("path", packed.path);
    file.Set("fileKey", segment_key_text(packed.key));
    file.Set("segments", tokens_value(env, {packed.segments.begin(), packed.segments.end()}));
    files.Set(uint32_t(i), file);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("about", about);
  object.Set("segments", segments);
  object.Set("files", files);
  return object;
}

Napi::Value segments_value(Napi::Env env, std::vector<PackReader::Segment> segments) {
  Napi::Array list = Napi::Array::New(env, segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    Napi::HandleScope scope(env);
    Napi::Object segment = Napi::Object::New(env);
    segment.Set("index", double(segments[i].index));
    segment.Set("tokens", tokens_value(env, segments[i].tokens));
    if (!segments[i].damage.empty()) segment.Set("damage", segments[i].damage);
    list.Set(uint32_t(i), segment);
  }
  return list;
}

Napi::Value reader_object(Napi::Env env, const SharedImport& pack) {
  Napi::Object object = Napi::Object::New(env);
  pack->use([&](PackImport& open) {
    object.Set("bytes", double(open.reader().bytes()));
    object.Set("head", head_object(env, open.reader().head()));
  });
  object.Set("read", method(env, [pack](const Napi::CallbackInfo& call) {
               using Segments = std::vector<PackReader::Segment>;
               return on_pool<Segments>(call.Env(), [pack] { return pack->use([](PackImport& open) { return open.read(); }); }, segments_value);
             }));
  object.Set("add", method(env, [pack](const Napi::CallbackInfo& call) {
               return on_pool<PackImport::Added>(
                   call.Env(), [pack, indices = tokens_of(call[0], "indices")] { return pack->use([&](PackImport& open) { return open.add(indices); }); },
                   [](Napi::Env env, PackImport::Added added) {
                     Napi::Object object = Napi::Object::New(env);
                     object.Set("neededBytes", double(added.needed_bytes));
                     if (added.failure) object.Set("failure", js_error(env, *added.failure).Value());
                     return object;
                   });
             }));
  object.Set("damageOfTheRest", method(env, [pack](const Napi::CallbackInfo& call) {
               return on_pool<std::string>(call.Env(), [pack] { return pack->use([](PackImport& open) { return open.reader().damage_of_the_rest(); }); },
                                           [](Napi::Env env, std::string damage) -> Napi::Value { return damage.empty() ? env.Undefined() : Napi::String::New(env, damage); });
             }));
  object.Set("close", method(env, [pack](const Napi::CallbackInfo& call) { return on_pool(call.Env(), std::function<void()>([pack] { pack->close(); })); }));
  return object;
}

}  // namespace

Napi::Value create_pack_writer(const Napi::CallbackInfo& call, std::shared_ptr<Store> store) {
  const Napi::Object params = object(call[0], "params");
  std::string path = text(params.Get("path"), "path"), temporary = text(params.Get("temporary"), "temporary");
  PackAbout about = about_of(object(params.Get("about"), "about"));
  std::vector<PackInput> inputs = inputs_of(params.Get("files"));
  using Writer = std::shared_ptr<Guarded<PackWriter>>;
  return on_pool<Writer>(
      call.Env(),
      [store = std::move(store), path = std::move(path), temporary = std::move(temporary), about = std::move(about), inputs = std::move(inputs)] {
        return std::make_shared<Guarded<PackWriter>>(system_files(), path, temporary, store, about, inputs);
      },
      [](Napi::Env env, Writer writer) { return writer_object(env, writer); });
}

Napi::Value open_pack_reader(const Napi::CallbackInfo& call, std::shared_ptr<Store> store, std::function<SegmentLayout(int n_tokens)> layout_of) {
  return on_pool<SharedImport>(
      call.Env(),
      [store = std::move(store), layout_of = std::move(layout_of), path = text(call[0], "path")] { return std::make_shared<Guarded<PackImport>>(path, store, layout_of); },
      [](Napi::Env env, SharedImport pack) { return reader_object(env, pack); });
}

}  // namespace sala
