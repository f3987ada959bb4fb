// SPDX-License-Identifier: Apache-2.0
// The schedule of the Hopper kernel of attention_8bit, run here by actors that note what they are told, and let loose:
// in any order, loads landing at any time, no tile may be read before it is there or replaced while it is read, and
// nobody may wait for ever. Mistakes planted into what was noted must be found.
#include "ops/attention_8bit/attention_8bit_schedule_cuda.h"

#include <deque>
#include <set>
#include <string>

#include "support.h"

using namespace wk::attention_8bit;

namespace {

constexpr int kRounds = 40;

enum class Kind { kLoad, kWaitFull, kWaitEmpty, kRead, kFinish, kRelease, kWaitTurn, kPassTurn };

struct Step {
  Kind kind;
  Tile tile = kKeys;
  int stage = 0;
  uint32_t phase = 0;
  int index = 0;  // of a tile; of a turn; groups of reads that may go on
};
using Steps = std::vector<Step>;

struct NotingProducer {
  Steps steps;
  void load_queries() {}
  void wait_until_empty(Tile tile, int stage, uint32_t phase) {
    steps.push_back({Kind::kWaitEmpty, tile, stage, phase});
  }
  void load(Tile tile, int stage, int index) { steps.push_back({Kind::kLoad, tile, stage, 0, index}); }
};

struct NotingConsumer {
  int warpgroup;
  Steps steps = {};
  void wait_for_queries() {}
  void wait_until_full(Tile tile, int stage, uint32_t phase) { steps.push_back({Kind::kWaitFull, tile, stage, phase}); }
  void start_scores(int stage, int index) { steps.push_back({Kind::kRead, kKeys, stage, 0, index}); }
  void start_products(int stage, int index) { steps.push_back({Kind::kRead, kValues, stage, 0, index}); }
  template <int kPending>
  void finish() {
    steps.push_back({Kind::kFinish, kKeys, 0, 0, kPending});
  }
  void release(Tile tile, int stage) { steps.push_back({Kind::kRelease, tile, stage}); }
  void weigh(int) {}
  void pack() {}
  void add_products() {}
  void open_turns(int num_tiles) {
    if (num_tiles > 1 && warpgroup == kConsumers - 1) pass_turn(false);
  }
  void wait_for_turn() { steps.push_back({Kind::kWaitTurn, kKeys, 0, 0, warpgroup}); }
  void pass_turn(bool is_last) {
    const int next = (warpgroup + 1) % kConsumers;
    if (!is_last || next != 0) steps.push_back({Kind::kPassTurn, kKeys, 0, 0, next});
  }
};

// All actors: the producer, then the consumers.
template <bool kTakesTurns>
std::vector<Steps> note(int num_tiles) {
  NotingProducer producer;
  produce(producer, num_tiles);
  std::vector<Steps> actors = {producer.steps};
  for (int warpgroup = 0; warpgroup < kConsumers; ++warpgroup) {
    NotingConsumer consumer{warpgroup};
    consume<kTakesTurns>(consumer, num_tiles);
    actors.push_back(consumer.steps);
  }
  return actors;
}

struct Barrier {
  int wanted, missing, loading = 0;
  uint32_t phase = 0;  // the one that has not ended

  explicit Barrier(int arrivals) : wanted(arrivals), missing(arrivals) {}
  bool has_ended(uint32_t parity) const { return phase != parity; }
  void settle() {
    if (missing > 0 || loading > 0) return;
    missing = wanted;
    phase ^= 1;
  }
};

struct Buffer {
  int holds = -1;
  bool is_landing = false;
  int readers = 0;
};

class Simulation {
 public:
  // Memory for fewer stages than the schedule thinks is one of the mistakes.
  Simulation(const std::vector<Steps> &actors, int num_buffers, unsigned seed)
      : actors_(actors),
        at_(actors.size(), 0),
        reads_(actors.size()),
        num_buffers_(num_buffers),
        state_(seed * 2654435761u + 1),
        slow_(seed % (actors.size() + 1)) {
    for (int i = 0; i < 2 * kStages; ++i) {
      full_.emplace_back(1);
      empty_.emplace_back(kArrivalsToEmpty);
    }
    buffers_.resize(static_cast<size_t>(2 * kStages));
    turns_.resize(kConsumers, 0);
  }

  // "" or what went wrong.
  std::string run() {
    while (fault_.empty()) {
      std::vector<size_t> able;  // actors that can go on, then loads that can land
      for (size_t i = 0; i < actors_.size(); ++i) {
        if (at_[i] < actors_[i].size() && can_run(actors_[i][at_[i]])) able.push_back(i);
      }
      for (size_t i = 0; i < landing_.size(); ++i) able.push_back(actors_.size() + i);
      if (able.empty()) return is_done() ? leftovers() : "all wait for ever";
      const size_t chosen = choose(able);
      if (chosen < actors_.size()) {
        execute(chosen, actors_[chosen][at_[chosen]]);
        ++at_[chosen];
      } else {
        land(chosen - actors_.size());
      }
    }
    return fault_;
  }

 private:
  unsigned random() { return (state_ = state_ * 1664525u + 1013904223u) >> 8; }

  // One actor of each run lags: what is only safe because others are slow shows.
  size_t choose(const std::vector<size_t> &able) {
    const size_t chosen = able[random() % able.size()];
    if (chosen != slow_ || able.size() == 1 || random() % 64 == 0) return chosen;
    return able[0] == slow_ ? able[1 + random() % (able.size() - 1)] : able[0];
  }

  static size_t place(const Step &step) { return static_cast<size_t>(step.tile * kStages + step.stage); }
  Buffer &buffer(const Step &step) {
    return buffers_[static_cast<size_t>(step.tile * kStages + step.stage % num_buffers_)];
  }

  bool is_done() const {
    for (size_t i = 0; i < actors_.size(); ++i) {
      if (at_[i] < actors_[i].size()) return false;
    }
    return true;
  }

  // A turn passed to nobody would be taken for one of the next call of the barrier.
  std::string leftovers() const {
    for (int turns : turns_) {
      if (turns != 0) return "a turn is left over";
    }
    return "";
  }

  bool can_run(const Step &step) const {
    switch (step.kind) {
      case Kind::kWaitFull: return full_[place(step)].has_ended(step.phase);
      case Kind::kWaitEmpty: return empty_[place(step)].has_ended(step.phase);
      case Kind::kWaitTurn: return turns_[static_cast<size_t>(step.index)] > 0;
      default: return true;
    }
  }

  void execute(size_t actor, const Step &step) {
    switch (step.kind) {
      case Kind::kLoad: return load(step);
      case Kind::kRead: return start_reading(actor, step);
      case Kind::kFinish: return finish_reading(actor, static_cast<size_t>(step.index));
      case Kind::kRelease: return release(step);
      case Kind::kWaitTurn: --turns_[static_cast<size_t>(step.index)]; return;
      case Kind::kPassTurn:
        if (++turns_[static_cast<size_t>(step.index)] > 1) fault_ = "a turn is passed twice";
        return;
      default: return;
    }
  }

  void load(const Step &step) {
    Buffer &to = buffer(step);
    if (to.readers > 0) fault_ = "a tile is replaced while it is read";
    if (to.is_landing) fault_ = "two loads go to one place";
    to.is_landing = true;
    Barrier &full = full_[place(step)];
    if (full.missing == 0) fault_ = "a load is announced twice";
    --full.missing;
    ++full.loading;
    landing_.push_back(step);
  }

  void land(size_t i) {
    const Step step = landing_[i];
    landing_.erase(landing_.begin() + static_cast<std::ptrdiff_t>(i));
    Buffer &to = buffer(step);
    to.is_landing = false;
    to.holds = step.index;
    Barrier &full = full_[place(step)];
    --full.loading;
    full.settle();
  }

  void start_reading(size_t actor, const Step &step) {
    Buffer &from = buffer(step);
    if (from.is_landing || from.holds != step.index) fault_ = "a tile is read that is not there";
    ++from.readers;
    reads_[actor].push_back(step);
  }

  void finish_reading(size_t actor, size_t may_go_on) {
    for (; reads_[actor].size() > may_go_on; reads_[actor].pop_front()) --buffer(reads_[actor].front()).readers;
  }

  void release(const Step &step) {
    Barrier &empty = empty_[place(step)];
    empty.missing -= kWarpsPerWarpgroup;
    if (empty.missing < 0) fault_ = "a stage is released twice";
    empty.settle();
  }

  std::vector<Steps> actors_;
  std::vector<size_t> at_;
  std::vector<std::deque<Step>> reads_;  // by actor, the oldest first
  int num_buffers_;
  unsigned state_;
  size_t slow_;  // in some runs a load
  std::vector<Barrier> full_, empty_;
  std::vector<Buffer> buffers_;
  std::vector<int> turns_;
  std::vector<Step> landing_;
  std::string fault_;
};

// What goes wrong in any of many orders.
std::set<std::string> faults(const std::vector<Steps> &actors, int num_buffers = kStages) {
  std::set<std::string> found;
  for (unsigned seed = 0; seed < kRounds; ++seed) {
    const std::string fault = Simulation(actors, num_buffers, seed).run();
    if (!fault.empty()) found.insert(fault);
  }
  return found;
}

// The step of that kind, the `skip`-th after the first.
size_t find(const Steps &steps, Kind kind, int skip = 0) {
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].kind == kind && skip-- == 0) return i;
  }
  EXPECT(!"there is such a step");
  return 0;
}

void drop(Steps &steps, size_t i) { steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(i)); }

constexpr int kManyTiles = 5 * kStages + 1;
const std::set<std::string> kForEver = {"all wait for ever"}, kEarly = {"a tile is read that is not there"},
                            kReplaced = {"a tile is replaced while it is read"};

void expect_found(const std::set<std::string> &found, const std::set<std::string> &any_of, int line) {
  for (const std::string &fault : found) {
    if (any_of.count(fault)) return;
  }
  std::printf("line %d: a planted mistake was not found\n", line);
  std::exit(1);
}

template <bool kTakesTurns>
void test_schedule() {
  for (int num_tiles = 0; num_tiles <= kManyTiles; ++num_tiles) EXPECT(faults(note<kTakesTurns>(num_tiles)).empty());
}

template <bool kTakesTurns>
void test_mistakes() {
  const std::vector<Steps> good = note<kTakesTurns>(kManyTiles);

  std::vector<Steps> swapped = good;  // the producer waits for the phase in which it loads
  for (Step &step : swapped[0]) step.phase ^= 1;
  expect_found(faults(swapped), kForEver, __LINE__);

  swapped = good;  // one consumer takes the round before for this one
  for (Step &step : swapped[1]) step.phase ^= 1;
  expect_found(faults(swapped), kEarly, __LINE__);

  for (int skip = 0; skip < 4; ++skip) {  // once for keys, for values, by either
    std::vector<Steps> silent = good;
    Steps &steps = silent[static_cast<size_t>(1 + skip % 2)];
    drop(steps, find(steps, Kind::kRelease, skip));
    expect_found(faults(silent), kForEver, __LINE__);
  }

  std::vector<Steps> impatient = good;  // released before the products that read it are done
  for (int skip = 0; skip < 2 * kManyTiles; ++skip) {
    const size_t i = find(impatient[1], Kind::kRelease, skip);
    std::swap(impatient[1][i], impatient[1][i - 1]);
  }
  expect_found(faults(impatient), kReplaced, __LINE__);

  std::vector<Steps> unguarded = good;
  for (int i = 0; i < 2 * kManyTiles; ++i) drop(unguarded[0], find(unguarded[0], Kind::kWaitEmpty));
  EXPECT(!faults(unguarded).empty());

  std::vector<Steps> late = good;  // the last wait for a tile forgotten
  drop(late[2], find(late[2], Kind::kWaitFull, 2 * kManyTiles - 1));
  expect_found(faults(late), kEarly, __LINE__);

  EXPECT(!faults(good, kStages - 1).empty());  // memory for a stage less than there are
}

void test_turns() {
  for (int skip : {0, 3}) {
    std::vector<Steps> kept = note<true>(kManyTiles);
    drop(kept[1], find(kept[1], Kind::kPassTurn, skip));
    expect_found(faults(kept), kForEver, __LINE__);
  }
  std::vector<Steps> one_too_many = note<true>(kManyTiles);
  one_too_many[2].push_back({Kind::kPassTurn, kKeys, 0, 0, 0});
  expect_found(faults(one_too_many), {"a turn is left over", "a turn is passed twice"}, __LINE__);
}

}  // namespace

int main() {
  test_schedule<false>();
  test_schedule<true>();
  test_mistakes<false>();
  test_mistakes<true>();
  test_turns();
  return 0;
}
