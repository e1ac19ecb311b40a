#include "thread_team.h"

#include <chrono>

namespace bidtrie {
namespace {

constexpr std::chrono::microseconds kSpin{50};

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Return once `value` differs from `old`.
void wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < 128; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  // From here on the other threads may be waiting for this core: where others keep the machine's cores busy,
  // the scheduler puts two of a team on one. Yielding costs little where nobody waits.
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    std::this_thread::yield();
    for (int i = 0; i < 32; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadTeam::ThreadTeam(int threads) : size_(threads) {
  workers_.reserve(static_cast<std::size_t>(threads - 1));
  try {
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back(&ThreadTeam::work, this, thread);
  } catch (...) {
    stop();
    throw;
  }
}

ThreadTeam::~ThreadTeam() {
  stop();
}

void ThreadTeam::stop() {
  stopping_ = true;
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::start(Function function, void* context) {
  function_ = function;
  context_ = context;
  if (size_ > 1) {
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
  }
  function(context, 0);
  barrier();
}

void ThreadTeam::work(int thread) {
  for (std::uint32_t seen = 0;;) {
    wait_for_change(started_, seen);
    ++seen;
    if (stopping_) return;
    function_(context_, thread);
    barrier();
  }
}

void ThreadTeam::barrier() {
  if (size_ == 1) return;
  const std::uint32_t generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    // Sequentially consistent, so that it is out before `notify_all` looks for sleepers: one that is about to
    // sleep either sees it or is seen.
    generation_.store(generation + 1, std::memory_order_seq_cst);
    generation_.notify_all();
  } else {
    wait_for_change(generation_, generation);
  }
}

}  // namespace bidtrie
