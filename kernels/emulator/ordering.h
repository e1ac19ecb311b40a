#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace bidtrie::emulator {

/// When a thread did something: `moment` counts what it stored and read.
struct Moment {
  std::uint32_t block = 0, epoch = 0, moment = 0;
  std::uint32_t thread = 0;
  bool operator==(const Moment&) const = default;
};

/// What orders the global memory accesses of different threads of one launch:
///
///  - in a block, sync_block;
///  - from block to block, a counter: the store, then a fence (by its thread, or by any thread of the block
///  after a
///    sync_block), then count_up of the counter (by the thread of the fence, or after a sync_block); on the
///    other side count_up of the same counter, and a sync_block between it and what the block's other threads
///    do.
///
/// Blocks run one after the other, so a block has seen all of the counter's past or none: chains over several
/// counters are not followed.
class Ordering {
 public:
  void start_launch();
  void start_block(std::uint32_t block, std::uint32_t threads);
  void pass_barrier() { ++epoch_; }

  /// Now, for the thread.
  Moment now(std::uint32_t thread);
  void fence(std::uint32_t thread);
  void count(std::uintptr_t counter, std::uint32_t thread);
  /// Whether the moment comes before what the thread does now.
  bool before(const Moment& then, std::uint32_t thread) const;
  /// Whether some thread counted at the address, and this thread comes after all who did.
  bool counted(std::uintptr_t counter) const { return releases_.contains(counter); }
  bool after_counts(std::uintptr_t counter, std::uint32_t thread) const;

 private:
  struct Fence {
    std::uint32_t epoch = 0, moment = 0;
  };
  struct Fences {
    Fence last, before;  // before: the last one of an earlier epoch
  };
  /// What of its block a count has made visible.
  struct Release {
    std::uint32_t epoch = 0;             // all before this epoch
    std::vector<std::uint32_t> moments;  // by thread: all up to this moment
  };
  struct Acquired {
    std::uintptr_t counter;
    std::uint32_t thread, epoch;
  };

  std::uint32_t block_ = 0, epoch_ = 0;
  std::vector<std::uint32_t> moments_;
  std::vector<Fences> fences_;
  std::vector<Acquired> acquired_;
  std::unordered_map<std::uintptr_t, std::unordered_map<std::uint32_t, Release>> releases_;
};

}  // namespace bidtrie::emulator
