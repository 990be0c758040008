// From the engine thread back to JavaScript: a Promise that is settled once, and callbacks before that. Errors become JavaScript
// errors with `.code` here and nowhere else.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "kernels/error.h"

namespace sala {

inline Napi::Error js_error(Napi::Env env, ErrorCode code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, error_code_name(code)));
  return error;
}

inline Napi::Error js_error(Napi::Env env, const EngineError& error) { return js_error(env, error.code(), error.what()); }

inline Napi::Error js_error(Napi::Env env, const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const EngineError& error) {
    return js_error(env, error);
  } catch (const std::bad_alloc&) {
    return js_error(env, ErrorCode::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return js_error(env, ErrorCode::internal, error.what());
  } catch (...) {
    return js_error(env, ErrorCode::internal, "unknown failure in the engine");
  }
}

// Runs a call from JavaScript: what is thrown in it becomes a JavaScript error with a code; nothing else may leave it.
template <typename Call>
Napi::Value guarded_call(Napi::Env env, Call&& call) {
  try {
    return call();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw js_error(env, std::current_exception());
  }
}

// One Promise and the door through which another thread settles it. While it is open the process stays alive.
// May be destroyed on any thread: what belongs to the environment is let go on the JavaScript thread when the promise is settled.
class Settler : public std::enable_shared_from_this<Settler> {
 public:
  // owner: is not collected while the promise is open. callback: what call_back() calls; may be empty.
  static std::shared_ptr<Settler> create(Napi::Object owner, Napi::Function callback = {}) {
    return std::shared_ptr<Settler>(new Settler(owner, callback));
  }
  ~Settler() {
    if (!settled_) napi_release_threadsafe_function(door_, napi_tsfn_release);
    owner_.SuppressDestruct();  // still there only if the environment has ended, and its references with it
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  // From any thread: the callback is called on the JavaScript thread, in the order of the calls. What it throws is not ours.
  void call_back(int value) {
    run([value](Napi::Env env, Napi::Function callback) { callback.Call({Napi::Number::New(env, value)}); });
  }

  // Settles the promise with what `make` returns (on the JavaScript thread) or with the error, and closes the door. Once.
  void settle(std::exception_ptr error, std::function<Napi::Value(Napi::Env)> make) {
    run([self = shared_from_this(), error, make = std::move(make)](Napi::Env env, Napi::Function) {
      self->owner_.Reset();
      if (error) {
        self->deferred_.Reject(js_error(env, error).Value());
      } else {
        try {
          self->deferred_.Resolve(make(env));
        } catch (...) {
          self->deferred_.Reject(js_error(env, std::current_exception()).Value());
        }
      }
    });
    settled_ = true;
    napi_release_threadsafe_function(door_, napi_tsfn_release);
  }

 private:
  using Task = std::function<void(Napi::Env, Napi::Function)>;

  static void run_task(napi_env env, napi_value callback, void*, void* boxed) {
    const std::unique_ptr<Task> task(static_cast<Task*>(boxed));
    if (env == nullptr) return;  // the environment has ended
    Napi::HandleScope scope(env);
    try {
      (*task)(env, Napi::Function(env, callback));
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    }
  }

  // Node-API's own functions: node-addon-api's wrapper of them does not compile under GCC's UBSan.
  Settler(Napi::Object owner, Napi::Function callback)
      : deferred_(Napi::Promise::Deferred::New(owner.Env())), owner_(Napi::Persistent(owner)) {
    const napi_env env = owner.Env();
    const napi_status status = napi_create_threadsafe_function(env, callback, nullptr, Napi::String::New(env, "sala"), 0, 1, nullptr,
                                                               nullptr, nullptr, run_task, &door_);
    if (status != napi_ok) throw Napi::Error::New(env);
  }

  void run(Task task) {
    auto boxed = std::make_unique<Task>(std::move(task));
    const napi_status status = napi_call_threadsafe_function(door_, boxed.get(), napi_tsfn_nonblocking);
    if (status == napi_ok) boxed.release();  // else the environment is ending
  }

  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference owner_;
  napi_threadsafe_function door_ = nullptr;
  bool settled_ = false;
};

// Runs `work` on libuv's pool and settles a promise with what `make` turns its result into.
template <class Result>
class PoolTask : public Napi::AsyncWorker {
 public:
  PoolTask(Napi::Env env, std::function<Result()> work, std::function<Napi::Value(Napi::Env, Result)> make)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)), make_(std::move(make)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      result_ = std::make_unique<Result>(work_());
    } catch (...) {
      error_ = std::current_exception();
    }
  }
  void OnOK() override {
    if (error_) {
      deferred_.Reject(js_error(Env(), error_).Value());
    } else {
      deferred_.Resolve(make_(Env(), std::move(*result_)));
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<Result()> work_;
  std::function<Napi::Value(Napi::Env, Result)> make_;
  std::unique_ptr<Result> result_;
  std::exception_ptr error_;
};

// A promise of what `work` returns, on libuv's pool.
template <class Result>
Napi::Value on_pool(Napi::Env env, std::function<Result()> work, std::function<Napi::Value(Napi::Env, Result)> make) {
  auto* task = new PoolTask<Result>(env, std::move(work), std::move(make));
  const Napi::Promise promise = task->promise();
  task->Queue();
  return promise;
}

inline Napi::Value on_pool(Napi::Env env, std::function<void()> work) {
  const auto run = [work = std::move(work)] {
    work();
    return true;
  };
  return on_pool<bool>(env, run, [](Napi::Env env, bool) { return env.Undefined(); });
}

inline Napi::Value on_pool(Napi::Env env, std::function<bool()> work) {
  return on_pool<bool>(env, std::move(work), [](Napi::Env env, bool result) { return Napi::Boolean::New(env, result); });
}

}  // namespace sala
