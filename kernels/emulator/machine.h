#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator/dimensions.h"
#include "emulator/error.h"
#include "emulator/fibre.h"
#include "emulator/ordering.h"
#include "emulator/traffic.h"

namespace bidtrie::emulator {

class SharedMemory;

constexpr unsigned kLanes = 32;

/// What the lanes of a warp do together: called once all are there, with the payload of each.
using Collective = void (*)(const std::array<void*, kLanes>& payloads);

/// A copy16 that has not been waited for.
struct Copy {
  SharedMemory* to;
  int first;
  std::uintptr_t from;  // 0: zeros
};

struct Thread {
  enum class State { kReady, kCollective, kBarrier, kDone };

  Fibre fibre;
  uint3 index;
  unsigned number = 0;  // in its block
  State state = State::kReady;
  bool begun = false;
  Site site;  // of the collective or barrier it waits at
  Collective collective = nullptr;
  void* payload = nullptr;
  std::vector<Copy> open_copies;
  std::deque<std::vector<Copy>> copy_groups;

  unsigned warp() const { return number / kLanes; }
  unsigned lane() const { return number % kLanes; }
};

/// The one GPU: it runs one launch at a time, on the host thread that launches.
class Machine {
 public:
  static Machine& get();

  void run(const char* kernel, dim3 grid, dim3 block, void (*body)(const void*), const void* arguments);
  void set_order(std::uint64_t seed) { random_.seed(seed); }

  // -- For the thread that runs

  /// The thread that runs; null outside of launches.
  Thread* thread() { return thread_; }
  /// The same; an error outside of launches, and if the thread does not come to an end.
  Thread& running(const Site& site);
  /// Lets the others run until all lanes of the warp have called with the same collective and site.
  void collect(Collective collective, void* payload, const Site& site);
  void barrier(const Site& site);
  [[noreturn]] void fail(Kind kind, const Site& site, const std::string& what);
  /// The same for a lane of the warp that meets in a collective.
  [[noreturn]] void fail_lane(Kind kind, unsigned lane, const std::string& what);

  // -- Of the launch

  /// "thread (x, y, z) of block (x, y, z)".
  static std::string name(std::uint32_t block, std::uint32_t thread);

  std::uint64_t launch() const { return launch_; }
  /// Different for every block of every launch.
  std::uint64_t block_serial() const { return block_serial_; }
  std::uint32_t block() const { return block_; }
  /// How many barriers the block has passed.
  std::uint32_t epoch() const { return epoch_; }
  void use_shared(std::size_t bytes, const Site& site);
  std::size_t shared_bytes() const { return shared_bytes_; }
  TrafficCounter& traffic() { return traffic_; }
  Ordering& ordering() { return ordering_; }

 private:
  static uint3 index_of(std::uint32_t number, const dim3& shape);
  void run_block();
  void run_warp(unsigned warp);
  void open_barrier();
  void meet(unsigned warp);
  void resume(Thread& thread);
  void abandon();
  void wait();
  std::string where(const Thread& thread, const Site& site) const;
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }

  std::mt19937_64 random_;
  std::string kernel_;
  void (*body_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
  std::uint64_t launch_ = 0, block_serial_ = 0;
  std::uint32_t block_ = 0, epoch_ = 0;
  std::size_t shared_bytes_ = 0;
  unsigned threads_in_block_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;  // kept for the next launch
  Thread* thread_ = nullptr;
  unsigned meeting_warp_ = 0;
  std::uint32_t calls_ = 0;  // of the device, since the thread went on
  bool running_ = false, abandoning_ = false;
  std::exception_ptr error_;
  TrafficCounter traffic_;
  Ordering ordering_;
};

}  // namespace bidtrie::emulator
