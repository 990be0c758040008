// Speculation changes how fast text is decoded, never what: ids, logits and the tail that is left are those of one token a step.
#include <random>

#include "doctest/doctest.h"
#include "native/speculation.h"
#include "test/native/engine_calls.h"

using namespace sala;

namespace {

using Ids = std::vector<int32_t>;

const std::string kTiny = std::string(SALA_TEST_DIR) + "/fixtures/tiny";
const Ids kPrefix{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

std::unique_ptr<Engine> load() {
  EngineOptions options;
  options.model_dir = kTiny;
  options.n_threads = 2;
  auto engine = std::make_unique<Engine>(options);
  set_prefix(*engine, kPrefix);
  return engine;
}

Ids random_ids(std::mt19937& random, int n, int below = 256) {
  Ids ids(n);
  for (int32_t& id : ids) id = int32_t(random() % below);
  return ids;
}

// What a decoding gives, and what the tail gives afterwards.
struct Decoded {
  Ids ids, called;
  std::vector<float> logits, next_logits;
  DecodeStop stop = DecodeStop::max_tokens;
  int n_proposed = 0, n_accepted = 0;
};

Decoded run(Engine& engine, int from, DecodeOptions options) {
  const int tail = engine.fork_tail(from);
  Decoded decoded;
  options.logits = true;
  options.on_token = [&](int32_t id) { decoded.called.push_back(id); };
  DecodeResult result = decode(engine, tail, options);
  decoded.ids = result.ids;
  decoded.logits = result.logits;
  decoded.stop = result.stop;
  decoded.n_proposed = result.n_proposed;
  decoded.n_accepted = result.n_accepted;
  if (result.stop != DecodeStop::context_full) decoded.next_logits = prefill(engine, tail, {5}, 1).logits;
  engine.release_tail(tail);
  return decoded;
}

// Drafts that are right, wrong from some place on, right in pieces, or about something else.
std::vector<Ids> drafts_of(std::mt19937& random, const Ids& ids) {
  std::vector<Ids> drafts(1 + random() % 3);
  for (Ids& draft : drafts) {
    draft = random() % 4 ? ids : random_ids(random, 40);
    const int n_wrong = int(random() % 20);
    for (int i = 0; i < n_wrong && !draft.empty(); ++i) draft[random() % draft.size()] = int32_t(random() % 256);
  }
  return drafts;
}

// Many decodings from a prefilled tail; returns the numbers of proposed and of accepted tokens.
std::pair<int, int> compare(Engine& engine, int tail, std::mt19937& random, int n_tokens) {
  DecodeOptions plain;
  plain.speculate = false;
  plain.max_tokens = n_tokens;
  const Decoded whole = run(engine, tail, plain);
  REQUIRE(whole.n_proposed == 0);
  int n_proposed = 0, n_accepted = 0;
  for (int round = 0; round < 4; ++round) {
    DecodeOptions options = plain;
    // The last round may stop at any token that comes.
    if (round == 3 && !whole.ids.empty()) options.stop_ids = {whole.ids[random() % whole.ids.size()]};
    if (round == 2) options.max_tokens = 1 + int(random() % n_tokens);
    const Decoded expected = round < 2 ? whole : run(engine, tail, options);
    options.speculate = true;
    if (round > 0) options.drafts = drafts_of(random, whole.ids);
    const Decoded found = run(engine, tail, options);
    REQUIRE(found.ids == expected.ids);
    CHECK(found.called == expected.ids);
    CHECK(found.stop == expected.stop);
    CHECK((found.logits == expected.logits));
    CHECK((found.next_logits == expected.next_logits));
    n_proposed += found.n_proposed;
    n_accepted += found.n_accepted;
  }
  return {n_proposed, n_accepted};
}

}  // namespace

TEST_CASE("speculation: composed tails decode the same, dense and selected, to the end of their room") {
  auto engine = load();
  std::mt19937 random(3);
  std::vector<SegmentInput> segments;
  for (int i = 0; i < 4; ++i) segments.push_back({numbered_key(i), random_ids(random, 100 + int(random() % 300)), 3});
  const auto handles = encode(*engine, segments).handles;
  int n_proposed = 0, n_accepted = 0;
  for (int round = 0; round < 8; ++round) {
    CAPTURE(round);
    TailInput input;
    if (round % 4) input.view = handles;
    input.starts_from = round % 2 ? TailStart::empty : TailStart::prefix;
    if (round % 4 > 1) input.dense_scope_tokens = 0;  // blocks are selected
    const int n_prompt = 1 + int(random() % 100);
    // Room for all, or an end that comes first.
    input.max_tokens = int(kPrefix.size()) + n_prompt + (round < 5 ? 200 : 20 + round);
    const int tail = engine->create_tail(input);
    prefill(*engine, tail, random_ids(random, n_prompt, round % 3 ? 256 : 4));
    const auto [proposed, accepted] = compare(*engine, tail, random, 150);
    engine->release_tail(tail);
    n_proposed += proposed;
    n_accepted += accepted;
  }
  MESSAGE(n_accepted, " of ", n_proposed, " proposed tokens accepted");
  CHECK(n_accepted > 200);              // it does something,
  CHECK(n_accepted < n_proposed - 80);  // and is wrong often enough to be tested
}

TEST_CASE("speculation: exact tails decode the same across the length where blocks begin to be selected") {
  auto engine = load();
  std::mt19937 random(4);
  int n_accepted = 0;
  for (int n_prompt : {30, 190, 250, 255, 300}) {
    CAPTURE(n_prompt);
    const int tail = engine->create_exact_tail(n_prompt, n_prompt + 100);
    prefill(*engine, tail, random_ids(random, n_prompt));
    n_accepted += compare(*engine, tail, random, 90).second;
    engine->release_tail(tail);
  }
  CHECK(n_accepted > 100);
}

TEST_CASE("speculation: a cancelled decoding leaves the tail after the last token that was told") {
  auto engine = load();
  std::mt19937 random(5);
  const int tail = engine->create_exact_tail(20, 200);
  prefill(*engine, tail, random_ids(random, 20));
  DecodeOptions options;
  options.speculate = false;
  options.max_tokens = 60;
  const Ids expected = run(*engine, tail, options).ids;
  for (size_t most : {1, 5, 6, 7, 20}) {
    const int working = engine->fork_tail(tail);
    options.speculate = true;
    options.drafts = {expected};
    Ids ids;
    Engine::JobPtr job;
    std::promise<void> known;
    options.on_token = [&](int32_t id) {
      if (ids.empty()) known.get_future().wait();
      ids.push_back(id);
      if (ids.size() == most) job->cancel();
    };
    CHECK_THROWS_AS(wait_for<DecodeResult>([&](auto done) {
                      job = engine->decode(working, Priority::decode, options, done);
                      known.set_value();
                    }),
                    EngineError);
    REQUIRE(ids == Ids(expected.begin(), expected.begin() + most));
    options.on_token = nullptr;
    DecodeOptions rest = options;
    rest.max_tokens = int(expected.size() - most);
    CHECK(decode(*engine, working, rest).ids == Ids(expected.begin() + most, expected.end()));
    engine->release_tail(working);
  }
}

TEST_CASE("speculation proposes what followed the place that agrees most") {
  const Ids text{1, 2, 3, 4, 5, 9, 2, 3, 7, 7, 1, 2, 3};
  CHECK(Speculation({}).propose(text, 7) == Ids{4, 5, 9});  // 1 2 3, not the later 2 3
  CHECK(Speculation({}).propose(text, 2) == Ids{4, 5});
  CHECK(Speculation({}).propose(text, 0).empty());
  CHECK(Speculation({{8, 7, 1, 2, 3, 6}}).propose(text, 7) == Ids{6});
  CHECK(Speculation({}).propose(Ids{1, 2, 3, 4}, 7).empty());
  CHECK(Speculation({{}, {4}}).propose(Ids{}, 7).empty());
}

TEST_CASE("speculation proposes more where a text is copied, and hardly anything where it is always wrong") {
  const Ids text{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3};
  Speculation copying({});
  CHECK(copying.propose(text, 7).size() == size_t(Speculation::kFew));
  copying.verified(Speculation::kFew, Speculation::kFew);
  CHECK(copying.propose(text, 7).size() == size_t(Speculation::kMany));
  copying.verified(Speculation::kMany, 2);
  CHECK(copying.propose(text, 7).size() == size_t(Speculation::kFew));

  Speculation wrong({});
  int n_proposals = 0;
  for (int i = 0; i < 1000; ++i) {
    const Ids proposed = wrong.propose(text, 7);
    if (proposed.empty()) continue;
    ++n_proposals;
    wrong.verified(int(proposed.size()), 0);
  }
  CHECK(n_proposals > 5);
  CHECK(n_proposals < 40);
}
