// Whatever the moment at which the power goes: the store opens, has all that was committed and nothing that was not whole, and
// serves no wrong byte. Every operation of random workloads is such a moment; every third time the power goes again while the
// store recovers.
//   SALA_CRASH_POINTS=10000 SALA_SEED=… test_native --test-case='store crash*'
#include "test/native/store_cases.h"

using namespace sala;

namespace {

constexpr int kIds = 40;

// A fixed list of calls from a seed, on a store whose model goes along.
class Workload {
 public:
  Workload(FaultFileSystem& files, uint32_t seed) : files_(files), random_(seed) {
    options_ = small_options();
    options_.segment_file_bytes = 2048 + random_() % 16000;
    options_.checkpoint_bytes = random_() % 3000;
    if (random_() % 2) options_.max_bytes = (60 << 10) + random_() % (100 << 10);
  }

  // Until the end, or Killed.
  void run(int n_steps) {
    open();
    for (int step = 0; step < n_steps; ++step) this->step();
  }

  // What a store may hold that is opened after the power went, and whether it does.
  void check(Store& store) const {
    const StoreModel found = contents_of(store, kIds);
    if (!evicting_) {
      CAPTURE(difference(found, committed_));
      CAPTURE(difference(found, current_));
      const bool allowed = found == committed_ || found == current_;
      REQUIRE(allowed);
      return;
    }
    // Some of what nobody had may have gone, and whatever waited may have been committed with it.
    const bool old_records = found.tables == committed_.tables, new_records = found.tables == current_.tables;
    const bool some_records = old_records || new_records;
    REQUIRE(some_records);
    for (int id : found.segments) REQUIRE((current_.segments.count(id) || committed_.segments.count(id)));
    for (int id : held_) {
      if (committed_.segments.count(id)) REQUIRE(found.segments.count(id));
    }
  }

  const StoreOptions& options() const { return options_; }

 private:
  void open() {
    store_ = std::make_unique<Store>(files_, kFolder, kIdentity, options_);
    held_.clear();
  }
  void step() {
    const int id = int(random_() % kIds);
    const size_t table = random_() % kStoreTables;
    const std::string key = "k" + std::to_string(random_() % 6);
    switch (random_() % 16) {
      case 0: case 1: case 2: case 3: case 4:
        try {
          add_segment(*store_, id);
          current_.segments.insert(id);
        } catch (const EngineError& error) {
          REQUIRE(error.code() == ErrorCode::store_full);
          make_room();
        }
        break;
      case 5: case 6: {
        std::string value(random_() % 200, char('a' + random_() % 26));
        current_.tables[table][key] = value;
        store_->put(StoreTable(table), key, value);
        break;
      }
      case 7:
        current_.tables[table].erase(key);
        store_->erase(StoreTable(table), key);
        break;
      case 8:
        if (store_->remove({key_of(id)}).n_segments == 1) current_.segments.erase(id);
        break;
      case 9: case 10: case 11:
        store_->commit();
        committed_ = current_;
        break;
      case 12:
        store_->checkpoint();
        committed_ = current_;
        break;
      case 13:
        if (random_() % 3 == 0) store_->purge();
        else store_->compact(random_() % 8000);
        committed_ = current_;
        break;
      case 14:
        if (held_.size() < 3 && store_->acquire(key_of(id))) held_.insert(id);
        break;
      case 15:
        if (random_() % 4 == 0) {
          store_.reset();
          current_ = committed_;
          open();
        } else {
          store_->verify();
        }
        break;
    }
  }
  void make_room() {
    evicting_ = true;
    store_->make_room(3000);
    evicting_ = false;
    std::erase_if(current_.segments, [&](int id) { return !store_->find(key_of(id)); });
    committed_ = current_;
  }

  FaultFileSystem& files_;
  std::mt19937 random_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
  StoreModel committed_, current_;  // current_: with what waits for a commit, which a commit that was under way may have made durable
  std::set<int> held_;
  bool evicting_ = false;
};

}  // namespace

TEST_CASE("store crash: at every write, flush, rename and removal of random workloads") {
  const uint32_t n_wanted = environment_number("SALA_CRASH_POINTS", 1500);
  uint32_t seed = seed_of("store crash");
  constexpr int kSteps = 120;
  uint32_t n_points = 0, n_workloads = 0, n_twice = 0;
  for (; n_points < n_wanted; ++seed, ++n_workloads) {
    for (int64_t at = 0;; ++at) {
      CAPTURE(seed);
      CAPTURE(at);
      FaultFileSystem files(seed * 31 + uint32_t(at));
      files.kill_at(at);
      {
        Workload workload(files, seed);
        bool killed = false;
        try {
          workload.run(kSteps);
        } catch (const Killed&) {
          killed = true;
        }
        if (!killed) break;
        ++n_points;
        files.crash();
        if (n_points % 3 == 0) {
          files.kill_at(int64_t(n_points / 3 % 12));
          try {
            Store store(files, kFolder, kIdentity, workload.options());
            store.checkpoint();
          } catch (const Killed&) {
            ++n_twice;
          }
          files.crash();
        }
        Store store(files, kFolder, kIdentity, workload.options());
        workload.check(store);
        // And it goes on from there.
        StoreModel model = contents_of(store, kIds);
        store.remove(store.keys());
        store.commit();
        add_segment(store, kIds);
        store.put(StoreTable::roots, "after", "crash");
        store.commit();
        model.segments = {kIds};
        model.tables[2]["after"] = "crash";
        REQUIRE(contents_of(store, kIds + 1) == model);
        require_sound(store);
      }
      files.crash();
      Store store(files, kFolder, kIdentity, small_options());
      REQUIRE(store.keys().size() == 1);
      REQUIRE(store.get(StoreTable::roots, "after") == "crash");
    }
  }
  std::printf("store crash: %u crash points of %u workloads, %u of them twice\n", n_points, n_workloads, n_twice);
  CHECK(n_points >= n_wanted);
}
