// Packs as JavaScript sees them: an object whose calls each do some of the work on libuv's pool, so that whoever waits can stop
// between two of them. What a pack is: store/pack.h.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "native/store/store.h"

namespace sala {

// createPack({ path, temporary, about, files }): a promise of a NativePackWriter (addon.ts).
Napi::Value create_pack_writer(const Napi::CallbackInfo& call, std::shared_ptr<Store> store);
// openPack(path): a promise of a NativePackReader.
Napi::Value open_pack_reader(const Napi::CallbackInfo& call, std::shared_ptr<Store> store, std::function<SegmentLayout(int n_tokens)> layout_of);

}  // namespace sala
