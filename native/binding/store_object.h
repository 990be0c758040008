// The engine's store as JavaScript sees it: its tables, and all that flushes, which runs on libuv's pool.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "native/store/store.h"

namespace sala {

struct StoreOfModel {
  std::shared_ptr<Store> store;
  std::function<SegmentLayout(int n_tokens)> layout_of;  // of the model's segments
};

class StoreObject : public Napi::ObjectWrap<StoreObject> {
 public:
  static Napi::Function init(Napi::Env env);
  // Only load() makes one: with an external that holds a StoreOfModel.
  explicit StoreObject(const Napi::CallbackInfo& info);

 private:
  template <Napi::Value (StoreObject::*body)(const Napi::CallbackInfo&)>
  Napi::Value guarded(const Napi::CallbackInfo& call);
  // Throws engine_unreachable once it is closed.
  std::shared_ptr<Store> store(Napi::Env env) const;

  Napi::Value read_only(const Napi::CallbackInfo& call);
  Napi::Value records(const Napi::CallbackInfo& call);
  Napi::Value write(const Napi::CallbackInfo& call);
  Napi::Value commit(const Napi::CallbackInfo& call);
  Napi::Value compact(const Napi::CallbackInfo& call);
  Napi::Value purge(const Napi::CallbackInfo& call);
  Napi::Value make_room(const Napi::CallbackInfo& call);
  Napi::Value verify(const Napi::CallbackInfo& call);
  Napi::Value missing(const Napi::CallbackInfo& call);
  Napi::Value create_pack(const Napi::CallbackInfo& call);
  Napi::Value open_pack(const Napi::CallbackInfo& call);
  Napi::Value statistics(const Napi::CallbackInfo& call);
  Napi::Value take_findings(const Napi::CallbackInfo& call);
  Napi::Value close(const Napi::CallbackInfo& call);

  std::shared_ptr<Store> store_;  // null: closed
  std::function<SegmentLayout(int n_tokens)> layout_of_;
};

}  // namespace sala
