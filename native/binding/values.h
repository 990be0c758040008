// JavaScript values ↔ ours, for all objects of the addon. What would be unsafe is a TypeError that names the argument.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "native/store/segment_record.h"

namespace sala {

[[noreturn]] inline void type_error(Napi::Env env, const std::string& message) { throw Napi::TypeError::New(env, message); }

inline Napi::Object object(const Napi::Value& value, const char* name) {
  if (!value.IsObject()) type_error(value.Env(), std::string(name) + ": expected an object");
  return value.As<Napi::Object>();
}

inline int integer(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) type_error(value.Env(), std::string(name) + ": expected a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= -2147483648.0 && number <= 2147483647.0) || number != double(int(number))) {
    type_error(value.Env(), std::string(name) + ": expected a whole number of 32 bits");
  }
  return int(number);
}

inline uint64_t byte_count(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= 9007199254740991.0)) type_error(value.Env(), std::string(name) + ": expected a number of bytes");
  return uint64_t(number);
}

inline std::string text(const Napi::Value& value, const char* name) {
  if (!value.IsString()) type_error(value.Env(), std::string(name) + ": expected a string");
  return value.As<Napi::String>().Utf8Value();
}

inline std::vector<SegmentKey> segment_keys(const Napi::Value& value) {
  if (!value.IsArray()) type_error(value.Env(), "keys: expected an array of strings");
  std::vector<SegmentKey> keys;
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) keys.push_back(parse_segment_key(text(array[i], "key")));
  return keys;
}

inline Napi::Array string_array(Napi::Env env, const std::vector<std::string>& list) {
  Napi::Array array = Napi::Array::New(env, list.size());
  for (size_t i = 0; i < list.size(); ++i) array.Set(uint32_t(i), list[i]);
  return array;
}

}  // namespace sala
