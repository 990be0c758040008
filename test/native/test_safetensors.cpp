// native/safetensors.h: every way in which a file, a header or an index can be wrong ends in an error that names the
// place; cut or altered anywhere, a file never yields a view outside itself.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <functional>

#include "native/safetensors.h"
#include "test/native/model_files.h"

using namespace sala;
using nlohmann::json;

namespace {

std::vector<TensorView> parse(const std::string& image) {
  return parse_safetensors(reinterpret_cast<const uint8_t*>(image.data()), image.size(), "x.safetensors");
}

std::vector<TensorView> parse(const json& header, size_t n_data_bytes) {
  return parse(safetensors_image(header.dump(), std::string(n_data_bytes, 'd')));
}

json entry(const std::string& dtype, const json& shape, const json& offsets) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

FileTensors two_tensors() {
  return {{"a", {"F32", {2, 3}, bytes_of<float>({1, 2, 3, 4, 5, 6})}}, {"b.c", {"I8", {5}, "hello"}}};
}

void write_index(const TemporaryFolder& folder, const json& weight_map) {
  write_text(folder / "model.safetensors.index.json",
             json({{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}).dump());
}

// Parts with one tensor each, a in 1 and b.c in 2, and their index.
void write_parts(const TemporaryFolder& folder) {
  const FileTensors tensors = two_tensors();
  write_text(folder / "model-00001-of-00002.safetensors", safetensors_image({{"a", tensors.at("a")}}));
  write_text(folder / "model-00002-of-00002.safetensors", safetensors_image({{"b.c", tensors.at("b.c")}}));
  write_index(folder, {{"a", "model-00001-of-00002.safetensors"}, {"b.c", "model-00002-of-00002.safetensors"}});
}

}  // namespace

TEST_CASE("a file's tensors") {
  const std::string image = safetensors_image(two_tensors());
  const std::vector<TensorView> views = parse(image);
  REQUIRE(views.size() == 2);
  CHECK(views[0].name == "a");
  CHECK(views[0].dtype == Dtype::f32);
  CHECK(views[0].shape == std::vector<int64_t>{2, 3});
  CHECK(views[0].file == "x.safetensors");
  CHECK(views[1].name == "b.c");
  CHECK(std::string(reinterpret_cast<const char*>(views[1].data), views[1].nbytes) == "hello");
  const Aligned<float> values = read_floats(views[0]);
  CHECK(std::vector<float>(values.begin(), values.end()) == std::vector<float>{1, 2, 3, 4, 5, 6});
}

TEST_CASE("scalars, empty tensors, empty files, and every dtype") {
  CHECK(parse(json::object(), 0).empty());
  CHECK(parse(json({{"__metadata__", {{"format", "pt"}}}}), 0).empty());
  CHECK(parse({{"s", entry("F32", json::array(), {0, 4})}}, 4)[0].shape.empty());
  CHECK(parse({{"e", entry("F32", {0, 7}, {0, 0})}}, 0)[0].nbytes == 0);
  CHECK(parse({{"e", entry("F32", {1 << 30, 0}, {0, 0})}}, 0)[0].shape == std::vector<int64_t>{1 << 30, 0});
  CHECK(parse({{"a", entry("U8", {3}, {0, 3})}, {"e", entry("U8", {0}, {3, 3})}, {"z", entry("U8", {0}, {0, 0})}}, 3)
            .size() == 3);
  const std::map<std::string, size_t> sizes = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
                                               {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                                               {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  for (const auto& [name, size] : sizes) {
    const TensorView view = parse({{"t", entry(name, {3}, {0, 3 * size})}}, 3 * size)[0];
    CHECK(dtype_name(view.dtype) == name);
    CHECK(dtype_size(view.dtype) == size);
  }
}

TEST_CASE("a header that contradicts itself or its file") {
  const auto refused = [](const json& header, size_t n_data_bytes, const std::vector<std::string>& parts,
                          ErrorCode code = ErrorCode::model_invalid) {
    std::vector<std::string> all = parts;
    all.push_back("x.safetensors: ");
    check_error(code, all, [&] { parse(header, n_data_bytes); });
  };
  const auto one = [](const std::string& dtype, const json& shape, const json& offsets) {
    return json({{"t", entry(dtype, shape, offsets)}});
  };
  refused(json::array(), 0, {"expected a JSON object, found []"});
  refused({{"t", 5}}, 0, {"t: expected an object", "found 5"});
  refused({{"t", {{"shape", {1}}, {"data_offsets", {0, 4}}}}}, 4, {"t: dtype: expected a name, found null"});
  refused(one("F4", {2}, {0, 1}), 1, {"t: dtype: expected one of", "found \"F4\""}, ErrorCode::unsupported);
  refused(one("F32", 3, {0, 12}), 12, {"t: shape: expected a list, found 3"});
  refused(one("F32", {-1}, {0, 4}), 4, {"t: shape", "found [-1]"});
  refused(one("F32", {1.0}, {0, 4}), 4, {"t: shape", "found [1.0]"});
  refused(one("F32", {UINT64_MAX}, {0, 4}), 4, {"t: shape", "18446744073709551615"});
  refused(one("U8", {int64_t{1} << 32, int64_t{1} << 32}, {0, 0}), 0, {"t: shape"});
  refused(one("U8", {1 << 16, 1 << 16, 1 << 16, 1 << 16}, {0, 0}), 1 << 16, {"t: shape"});  // 2^64, which wraps to 0
  refused(one("F32", {2}, {0, 12}), 12,
          {"t: data_offsets: expected 2 elements of 4 bytes for F32 [2], found 12 bytes"});
  refused(one("F32", {2}, {0, 7}), 7, {"t: data_offsets"});
  refused(one("F32", {1}, {4, 0}), 4, {"t: data_offsets: expected [begin, end]", "found [4,0]"});
  refused(one("F32", {1}, {0, 4}), 3, {"t: data_offsets: expected [begin, end] within the file's 3 data bytes"});
  refused(one("F32", {1}, {0}), 4, {"t: data_offsets"});
  refused(one("F32", {1}, {0, 4, 8}), 4, {"t: data_offsets"});
  refused(one("F32", {1}, {-4, 0}), 4, {"t: data_offsets"});
  refused(one("F32", {1}, "0-4"), 4, {"t: data_offsets"});
  refused({{"a", entry("U8", {4}, {0, 4})}, {"b", entry("U8", {4}, {2, 6})}}, 6,
          {"b: expected its data at 4", "at 2 (overlap)"});
  refused({{"a", entry("U8", {4}, {0, 4})}, {"b", entry("U8", {4}, {0, 4})}}, 4, {"(overlap)"});
  refused({{"a", entry("U8", {4}, {0, 4})}, {"b", entry("U8", {0}, {2, 2})}}, 4, {"b: expected its data at 4"});
  refused({{"a", entry("U8", {4}, {0, 4})}, {"b", entry("U8", {4}, {5, 9})}}, 9,
          {"b: expected its data at 4", "at 5 (hole)"});
  refused({{"a", entry("U8", {4}, {1, 5})}}, 5, {"a: expected its data at 0"});
  refused({{"a", entry("U8", {4}, {0, 4})}}, 6, {"expected 4 data bytes for its tensors, found 6"});
  check_error(ErrorCode::model_invalid, {"x.safetensors: expected every key once, found \"a\" twice"}, [] {
    const std::string a = R"("a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]})";
    parse(safetensors_image("{" + a + "," + a + "}", "1"));
  });
}

TEST_CASE("a header length that is not one") {
  check_error(ErrorCode::model_invalid, {"expected a header length of 8 bytes, found a file of 3"},
              [] { parse(std::string("abc")); });
  for (const uint64_t n : {uint64_t{3}, uint64_t{100'000'001}, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7}) {
    const std::string image = std::string(reinterpret_cast<const char*>(&n), 8) + "{}";
    check_error(ErrorCode::model_invalid, {"x.safetensors: expected a header of at most 2 bytes", std::to_string(n)},
                [&] { parse(image); });
  }
}

TEST_CASE("cut at any length") {
  TemporaryFolder folder;
  const std::string image = safetensors_image(two_tensors());
  for (size_t n = 0; n < image.size(); ++n) {
    write_text(folder / "model.safetensors", image.substr(0, n));
    check_error(ErrorCode::model_invalid, {folder / "model.safetensors", "expected"},
                [&] { Checkpoint checkpoint(folder.path); });
  }
}

TEST_CASE("altered anywhere: an error, or views within the file") {
  const std::string image = safetensors_image(two_tensors());
  const uint32_t seed = std::random_device()();
  INFO("seed ", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20000; ++round) {
    std::string altered = image;
    for (int n = 1 + static_cast<int>(random() % 3); n > 0; --n)
      altered[random() % altered.size()] = static_cast<char>(random());
    try {
      const auto* begin = reinterpret_cast<const uint8_t*>(altered.data());
      for (const TensorView& view : parse(altered)) {
        CHECK(view.data >= begin);
        CHECK(view.data + view.nbytes <= begin + altered.size());
      }
    } catch (const EngineError& error) {
      const bool expected = error.code() == ErrorCode::model_invalid || error.code() == ErrorCode::unsupported;
      CHECK_MESSAGE(expected, error.what());
    }
  }
}

TEST_CASE("one file or parts give the same tensors") {
  TemporaryFolder single, parts;
  write_text(single / "model.safetensors", safetensors_image(two_tensors()));
  write_parts(parts);
  for (const TemporaryFolder* folder : {&single, &parts}) {
    const Checkpoint checkpoint(folder->path);
    CHECK(checkpoint.names() == std::vector<std::string>{"a", "b.c"});
    CHECK(checkpoint.has("a"));
    CHECK_FALSE(checkpoint.has("b"));
    TensorView text = checkpoint.get("b.c"), numbers = checkpoint.get("a");
    std::vector<uint8_t> text_bytes(text.nbytes), number_bytes(numbers.nbytes);
    checkpoint.read(text, text_bytes.data());
    checkpoint.read(numbers, number_bytes.data());
    CHECK(std::string(text_bytes.begin(), text_bytes.end()) == "hello");
    CHECK(text.file.rfind(folder->path, 0) == 0);
    CHECK(checkpoint.get("a").data == nullptr);
    numbers.data = number_bytes.data();
    CHECK(read_floats(numbers)[5] == 6);
    check_error(ErrorCode::model_invalid, {folder->path, "zz: expected this tensor"}, [&] { checkpoint.get("zz"); });
  }
  // Beside an index, the single file counts.
  write_text(parts / "model.safetensors", safetensors_image({{"only", {"U8", {1}, "1"}}}));
  CHECK(Checkpoint(parts.path).names() == std::vector<std::string>{"only"});
}

TEST_CASE("folders without a usable file") {
  TemporaryFolder folder;
  check_error(ErrorCode::model_not_found, {folder.path, "expected model.safetensors or model.safetensors.index.json"},
              [&] { Checkpoint checkpoint(folder.path); });
  REQUIRE(::mkfifo((folder / "model.safetensors").c_str(), 0600) == 0);
  check_error(ErrorCode::model_invalid, {folder / "model.safetensors", "a pipe"},
              [&] { Checkpoint checkpoint(folder.path); });
}

TEST_CASE("an index and parts that do not agree") {
  const std::string first = "model-00001-of-00002.safetensors", second = "model-00002-of-00002.safetensors";
  const auto refused = [](const std::vector<std::string>& parts,
                          const std::function<void(const TemporaryFolder&)>& damage) {
    TemporaryFolder folder;
    write_parts(folder);
    damage(folder);
    check_error(ErrorCode::model_invalid, parts, [&] { Checkpoint checkpoint(folder.path); });
  };
  refused({second, "No such file"}, [&](auto& folder) { std::filesystem::remove(folder / second); });
  refused({"index.json", "only the 2 parts", "found model-00003-of-00003.safetensors"}, [&](auto& folder) {
    write_text(folder / "model-00003-of-00003.safetensors", safetensors_image(two_tensors()));
  });
  refused({second, "a: expected in " + first, "found here"},
          [&](auto& folder) { write_text(folder / second, safetensors_image(two_tensors())); });
  refused({first, "a: expected in " + second},
          [&](auto& folder) { write_index(folder, {{"a", second}, {"b.c", first}}); });
  refused({first, "a: expected in no part"},
          [&](auto& folder) { write_index(folder, {{"x", first}, {"b.c", second}}); });
  refused({first, "z: expected by the index, not found"},
          [&](auto& folder) { write_index(folder, {{"a", first}, {"b.c", second}, {"z", first}}); });
  refused({second, "expected"}, [&](auto& folder) { write_text(folder / second, "short"); });
  for (const json& name :
       {json("../model-00001-of-00002.safetensors"), json("/etc/model.safetensors"), json("a\\b.safetensors"),
        json("C:a.safetensors"), json(".."), json(""), json("model.bin"), json(".safetensors"),
        json(std::string("a\0b.safetensors", 15)), json(5), json(nullptr), json::array({first})}) {
    refused({"index.json", "a: expected the name of a .safetensors file in this folder, found "},
            [&](auto& folder) { write_index(folder, {{"a", name}, {"b.c", second}}); });
  }
  for (const char* text : {R"({"weight_map": []})", R"({"weight_map": {}})", R"({})", R"([1])"}) {
    refused({"index.json", "weight_map: expected an object"},
            [&](auto& folder) { write_text(folder / "model.safetensors.index.json", text); });
  }
  refused({"index.json", "JSON"}, [&](auto& folder) { write_text(folder / "model.safetensors.index.json", "{"); });
  refused({"index.json", "every key once, found \"a\" twice"}, [&](auto& folder) {
    write_text(folder / "model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"" + first + "\", \"a\": \"" + second + "\"}}");
  });
}

TEST_CASE("read_floats: three dtypes, at any alignment, finite only") {
  const FileTensors tensors = {{"bf16", {"BF16", {2}, bytes_of<uint16_t>({0x3f80, 0xc000})}},
                               {"f16", {"F16", {2}, bytes_of<uint16_t>({0x3c00, 0xc000})}},
                               {"f32", {"F32", {2}, bytes_of<float>({1, -2})}}};
  for (size_t shift = 0; shift < 4; ++shift) {
    const std::string image = safetensors_image(tensors, shift);
    for (const TensorView& view : parse(image)) {
      const Aligned<float> values = read_floats(view);
      CHECK(values[0] == 1);
      CHECK(values[1] == -2);
    }
  }
  for (const auto& [dtype, bytes] :
       {std::pair{"F32", bytes_of<float>({0, INFINITY})}, std::pair{"F16", bytes_of<uint16_t>({0, 0x7e00})},
        std::pair{"BF16", bytes_of<uint16_t>({0, 0xff80})}}) {
    const std::string image = safetensors_image(FileTensors{{"t", {dtype, {2}, bytes}}});
    check_error(ErrorCode::model_invalid, {"x.safetensors: t: expected finite values", "at 1"},
                [&] { read_floats(parse(image)[0]); });
  }
}

TEST_CASE("expect_tensor names file, tensor, expected and found") {
  const std::string image = safetensors_image(two_tensors());
  const TensorView a = parse(image)[0];
  expect_tensor(a, {Dtype::f16, Dtype::f32}, {2, 3});
  check_error(ErrorCode::model_invalid, {"x.safetensors: a: expected [3, 2], found [2, 3]"},
              [&] { expect_tensor(a, {Dtype::f32}, {3, 2}); });
  check_error(ErrorCode::unsupported, {"x.safetensors: a: expected F16 or BF16, found F32"},
              [&] { expect_tensor(a, {Dtype::f16, Dtype::bf16}, {2, 3}); });
}
