#include "native/binding/store_object.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "native/binding/async.h"
#include "native/binding/pack_object.h"
#include "native/binding/values.h"

namespace sala {

namespace {

// Copied in one go while others wait for the disk.
constexpr uint64_t kCompactBytes = uint64_t(16) << 20;

StoreTable table(const Napi::Value& value) {
  const std::string name = text(value, "table");
  const std::pair<const char*, StoreTable> known[] = {
      {"files", StoreTable::files}, {"versions", StoreTable::versions}, {"roots", StoreTable::roots}};
  for (const auto& [text, table] : known) {
    if (name == text) return table;
  }
  type_error(value.Env(), "table: expected files, versions or roots, found '" + name + "'");
}

struct Change {
  StoreTable table;
  std::string key;
  std::optional<std::string> value;
};

}  // namespace

Napi::Function StoreObject::init(Napi::Env env) {
  return DefineClass(env, "NativeStore",
                     {InstanceAccessor<&StoreObject::guarded<&StoreObject::read_only>>("readOnly"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::records>>("records"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::write>>("write"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::commit>>("commit"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::compact>>("compact"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::purge>>("purge"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::make_room>>("makeRoom"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::verify>>("verify"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::missing>>("missing"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::create_pack>>("createPack"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::open_pack>>("openPack"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::statistics>>("statistics"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::take_findings>>("takeFindings"),
                      InstanceMethod<&StoreObject::guarded<&StoreObject::close>>("close")});
}

StoreObject::StoreObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<StoreObject>(info) {
  if (!info[0].IsExternal()) type_error(info.Env(), "expected load() to make a store");
  const StoreOfModel& given = *info[0].As<Napi::External<StoreOfModel>>().Data();
  store_ = given.store;
  layout_of_ = given.layout_of;
}

template <Napi::Value (StoreObject::*body)(const Napi::CallbackInfo&)>
Napi::Value StoreObject::guarded(const Napi::CallbackInfo& call) {
  return guarded_call(call.Env(), [&] { return (this->*body)(call); });
}

std::shared_ptr<Store> StoreObject::store(Napi::Env env) const {
  if (!store_) throw js_error(env, ErrorCode::engine_unreachable, "expected an open store, found a closed one");
  return store_;
}

Napi::Value StoreObject::read_only(const Napi::CallbackInfo& call) {
  const auto& why = store(call.Env())->read_only();
  return why ? Napi::String::New(call.Env(), *why) : call.Env().Undefined();
}

Napi::Value StoreObject::records(const Napi::CallbackInfo& call) {
  const StoreTable wanted = table(call[0]);
  using Records = std::vector<std::pair<std::string, std::string>>;
  return on_pool<Records>(
      call.Env(), [store = store(call.Env()), wanted, prefix = text(call[1], "keyPrefix")] { return store->records(wanted, prefix); },
      [](Napi::Env env, Records records) {
        Napi::Array list = Napi::Array::New(env, records.size());
        for (size_t i = 0; i < records.size(); ++i) {
          Napi::HandleScope scope(env);
          Napi::Array pair = Napi::Array::New(env, 2);
          pair.Set(0u, records[i].first);
          pair.Set(1u, records[i].second);
          list.Set(uint32_t(i), pair);
        }
        return list;
      });
}

Napi::Value StoreObject::write(const Napi::CallbackInfo& call) {
  if (!call[0].IsArray()) type_error(call.Env(), "changes: expected an array");
  const auto array = call[0].As<Napi::Array>();
  std::vector<Change> changes;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    Napi::HandleScope scope(call.Env());
    const Napi::Object change = object(array[i], "changes");
    const Napi::Value value = change.Get("value");
    changes.push_back({table(change.Get("table")), text(change.Get("key"), "key"), value.IsNull() ? std::nullopt : std::optional(text(value, "value"))});
  }
  return on_pool(call.Env(), std::function<void()>([store = store(call.Env()), changes = std::move(changes)]() mutable {
                   for (Change& change : changes) {
                     if (change.value) store->put(change.table, std::move(change.key), std::move(*change.value));
                     else store->erase(change.table, change.key);
                   }
                   changes.clear();
                   store->commit();
                 }));
}

Napi::Value StoreObject::commit(const Napi::CallbackInfo& call) {
  return on_pool(call.Env(), std::function<void()>([store = store(call.Env())] { store->commit(); }));
}

Napi::Value StoreObject::compact(const Napi::CallbackInfo& call) {
  return on_pool(call.Env(), std::function<bool()>([store = store(call.Env())] { return store->compact(kCompactBytes); }));
}

Napi::Value StoreObject::purge(const Napi::CallbackInfo& call) {
  return on_pool(call.Env(), std::function<void()>([store = store(call.Env())] { store->purge(); }));
}

Napi::Value StoreObject::make_room(const Napi::CallbackInfo& call) {
  const uint64_t n_bytes = byte_count(call[0], "bytes");
  return on_pool(call.Env(), std::function<bool()>([store = store(call.Env()), n_bytes] { return store->make_room(n_bytes); }));
}

Napi::Value StoreObject::verify(const Napi::CallbackInfo& call) {
  return on_pool<Verification>(
      call.Env(), [store = store(call.Env())] { return store->verify(); },
      [](Napi::Env env, Verification found) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("nSegments", double(found.n_segments));
        object.Set("nFiles", double(found.n_files));
        object.Set("bytes", double(found.bytes));
        object.Set("nDamaged", double(found.damaged.size()));
        object.Set("findings", string_array(env, found.findings));
        return object;
      });
}

Napi::Value StoreObject::missing(const Napi::CallbackInfo& call) {
  auto keys = segment_keys(call[0]);
  return on_pool<std::vector<std::string>>(
      call.Env(),
      [store = store(call.Env()), keys = std::move(keys)] {
        std::vector<std::string> missing;
        for (const SegmentKey& key : keys) {
          if (!store->find(key)) missing.push_back(segment_key_text(key));
        }
        return missing;
      },
      string_array);
}

Napi::Value StoreObject::create_pack(const Napi::CallbackInfo& call) {
  auto store = this->store(call.Env());
  return create_pack_writer(call, std::move(store));
}

Napi::Value StoreObject::open_pack(const Napi::CallbackInfo& call) {
  auto store = this->store(call.Env());
  return open_pack_reader(call, std::move(store), layout_of_);
}

Napi::Value StoreObject::statistics(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const StoreStatistics statistics = store(env)->statistics();
  Napi::Object object = Napi::Object::New(env);
  object.Set("bytes", double(statistics.bytes));
  object.Set("liveBytes", double(statistics.live_bytes));
  object.Set("nSegments", double(statistics.n_segments));
  object.Set("nFiles", double(statistics.n_files));
  object.Set("nRecords", double(statistics.n_records));
  return object;
}

Napi::Value StoreObject::take_findings(const Napi::CallbackInfo& call) {
  return string_array(call.Env(), store(call.Env())->take_findings());
}

Napi::Value StoreObject::close(const Napi::CallbackInfo& call) {
  store_.reset();
  return call.Env().Undefined();
}

}  // namespace sala
