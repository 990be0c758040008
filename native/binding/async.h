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

inline Napi::Error js_error(Napi::Env env, const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const EngineError& error) {
    return js_error(env, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return js_error(env, ErrorCode::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return js_error(env, ErrorCode::internal, error.what());
  } catch (...) {
    return js_error(env, ErrorCode::internal, "unknown failure in the engine");
  }
}

// One Promise and the door through which another thread settles it. While it is open the process stays alive.
class Settler : public std::enable_shared_from_this<Settler> {
 public:
  static std::shared_ptr<Settler> create(Napi::Env env) { return std::shared_ptr<Settler>(new Settler(env)); }

  Napi::Promise promise() const { return deferred_.Promise(); }

  // From any thread: runs on the JavaScript thread, in the order of the calls.
  void call(std::function<void(Napi::Env)> run) {
    auto* boxed = new std::function<void(Napi::Env)>(std::move(run));
    const napi_status status = door_.NonBlockingCall(boxed, [](Napi::Env env, Napi::Function, std::function<void(Napi::Env)>* boxed) {
      std::unique_ptr<std::function<void(Napi::Env)>> owned(boxed);
      if (env != nullptr) (*owned)(env);
    });
    if (status != napi_ok) delete boxed;  // the process is ending
  }

  // Settles the promise with what `make` returns (on the JavaScript thread) or with the error, and closes the door.
  void settle(std::exception_ptr error, std::function<Napi::Value(Napi::Env)> make) {
    call([self = shared_from_this(), error, make = std::move(make)](Napi::Env env) {
      Napi::HandleScope scope(env);
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
    door_.Release();
  }

 private:
  explicit Settler(Napi::Env env)
      : deferred_(Napi::Promise::Deferred::New(env)),
        door_(Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "sala", 0, 1)) {}

  Napi::Promise::Deferred deferred_;
  Napi::ThreadSafeFunction door_;
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

}  // namespace sala
