#include "emulator/machine.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <sstream>
#include <utility>

#include "emulator/launch.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace bidtrie::emulator {

namespace {

constexpr std::uint32_t kMostCalls = 1 << 20;   // of the device, before a thread meets others or ends
constexpr std::size_t kSharedBytes = 48 << 10;  // static shared memory of a block, on every architecture

/// Unwinds the stack of a thread whose launch has failed.
struct Abandoned {};

std::ostream& operator<<(std::ostream& out, const uint3& i) {
  return out << '(' << i.x << ", " << i.y << ", " << i.z << ')';
}

bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && !std::strcmp(a.file_name(), b.file_name());
}

std::string line(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.find_last_of('/') + 1) + ':' + std::to_string(site.line());
}

}  // namespace

Machine& Machine::get() {
  static Machine machine;
  return machine;
}

void Machine::run(const char* kernel, dim3 grid, dim3 block, void (*body)(const void*),
                  const void* arguments) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Kind::kLaunch, std::string("kernel ") + kernel + ": " + what);
  };
  if (running_) refuse("launched while " + kernel_ + " runs");
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || threads == 0 || threads > 1024) {
    refuse("a block has 1 to 1024 threads, at most 64 in z; not " + std::to_string(block.x) + " x " +
           std::to_string(block.y) + " x " + std::to_string(block.z));
  }
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (grid.y > 65535 || grid.z > 65535 || blocks == 0 || blocks > 0x7fffffff) {
    refuse("a grid has 1 to 2^31 - 1 blocks, at most 65535 in y and z; not " + std::to_string(grid.x) +
           " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z));
  }

  kernel_ = kernel;
  body_ = body;
  arguments_ = arguments;
  gridDim = grid;
  blockDim = block;
  threads_in_block_ = static_cast<unsigned>(threads);
  while (threads_.size() < threads) threads_.push_back(std::make_unique<Thread>());
  ++launch_;
  shared_bytes_ = 0;
  error_ = nullptr;
  traffic_.start((threads_in_block_ + kLanes - 1) / kLanes);
  ordering_.start_launch();

  std::vector<std::uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random_);
  running_ = true;
  for (const std::uint32_t b : order) {
    block_ = b;
    run_block();
    traffic_.end_block();
    if (error_) break;
  }
  running_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Machine::run_block() {
  ++block_serial_;
  epoch_ = 1;
  ordering_.start_block(block_, threads_in_block_);
  blockIdx = index_of(block_, gridDim);
  for (unsigned n = 0; n < threads_in_block_; ++n) {
    Thread& thread = *threads_[n];
    thread.number = n;
    thread.index = index_of(n, blockDim);
    thread.state = Thread::State::kReady;
    thread.begun = false;
    thread.open_copies.clear();
    thread.copy_groups.clear();
  }
  const unsigned warps = (threads_in_block_ + kLanes - 1) / kLanes;
  std::vector<unsigned> ready;  // warps that have not come to a barrier or their end
  try {
    do {
      ready.resize(warps);
      std::iota(ready.begin(), ready.end(), 0u);
      while (!ready.empty()) {
        const std::size_t pick = below(static_cast<std::uint32_t>(ready.size()));
        const unsigned warp = ready[pick];
        run_warp(warp);
        if (threads_[warp * kLanes]->state != Thread::State::kReady) {
          ready[pick] = ready.back();
          ready.pop_back();
        }
      }
      open_barrier();
    } while (threads_[0]->state == Thread::State::kReady);
  } catch (...) {
    if (!error_) error_ = std::current_exception();
  }
  thread_ = nullptr;
  if (error_) abandon();
}

// Runs each lane until it waits or ends. Afterwards all lanes are ready (they have met in a collective), or
// none is.
void Machine::run_warp(unsigned warp) {
  const unsigned first = warp * kLanes, lanes = std::min(kLanes, threads_in_block_ - first);
  const unsigned start = below(kLanes), step = 2 * below(kLanes / 2) + 1;  // visits every lane once
  unsigned meeting = 0;
  for (unsigned i = 0; i < kLanes; ++i) {
    const unsigned lane = (start + i * step) % kLanes;
    if (lane >= lanes) continue;
    Thread& thread = *threads_[first + lane];
    if (thread.state == Thread::State::kReady) resume(thread);
    if (thread.state == Thread::State::kCollective) ++meeting;
  }
  if (meeting) meet(warp);
}

void Machine::resume(Thread& thread) {
  thread.begun = true;
  calls_ = 0;
  thread_ = &thread;
  threadIdx = thread.index;
  thread.fibre.resume(
      [](void* p) {
        Machine& machine = *static_cast<Machine*>(p);
        Thread& self = *machine.thread_;
        try {
          machine.body_(machine.arguments_);
        } catch (const Abandoned&) {
        } catch (...) {
          if (!machine.error_) machine.error_ = std::current_exception();
        }
        self.state = Thread::State::kDone;
      },
      this);
  thread_ = nullptr;
  if (error_ && !abandoning_) std::rethrow_exception(error_);
}

// After an error: lets every thread that has begun leave its kernel, so that what it holds is given back.
void Machine::abandon() {
  abandoning_ = true;
  for (unsigned n = 0; n < threads_in_block_; ++n) {
    Thread& thread = *threads_[n];
    if (thread.begun && thread.state != Thread::State::kDone) resume(thread);
    thread.open_copies.clear();
    thread.copy_groups.clear();
  }
  abandoning_ = false;
}

void Machine::wait() {
  Fibre::pause();
  if (abandoning_) throw Abandoned();
}

void Machine::meet(unsigned warp) {
  const unsigned first = warp * kLanes, lanes = std::min(kLanes, threads_in_block_ - first);
  const Thread* one = nullptr;  // that waits in a collective
  for (unsigned lane = 0; lane < lanes && !one; ++lane) {
    if (threads_[first + lane]->state == Thread::State::kCollective) one = threads_[first + lane].get();
  }
  const auto diverge = [&](const std::string& what) {
    throw Error(Kind::kDivergentCollective,
                where(*one, one->site) + "all 32 lanes of a warp have to meet in a collective, but " + what);
  };
  if (lanes < kLanes) diverge("the warp has only " + std::to_string(lanes));
  std::array<void*, kLanes> payloads;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const Thread& thread = *threads_[first + lane];
    const auto but = [&](const std::string& what) { diverge("lane " + std::to_string(lane) + what); };
    if (thread.state == Thread::State::kDone) but(" has ended");
    if (thread.state == Thread::State::kBarrier) but(" waits in sync_block at " + line(thread.site));
    if (thread.collective != one->collective || !same(thread.site, one->site)) {
      but(" is in the one at " + line(thread.site));
    }
    payloads[lane] = thread.payload;
  }
  meeting_warp_ = warp;
  one->collective(payloads);
  for (unsigned lane = 0; lane < kLanes; ++lane) threads_[first + lane]->state = Thread::State::kReady;
}

// No thread can go on: either all wait in one barrier, or all have ended.
void Machine::open_barrier() {
  const auto begin = threads_.begin(), end = begin + threads_in_block_;
  const auto waits = [](const auto& thread) { return thread->state == Thread::State::kBarrier; };
  const auto first = std::find_if(begin, end, waits);
  if (first == end) return;
  const Thread& one = **first;
  for (auto t = begin; t != end; ++t) {
    const Thread& other = **t;
    if (waits(*t) && same(other.site, one.site)) continue;
    std::ostringstream what;
    what << where(one, one.site) << "all threads of the block have to meet in sync_block, but thread "
         << other.index << (waits(*t) ? " is in the one at " + line(other.site) : " has ended");
    throw Error(Kind::kDivergentBarrier, what.str());
  }
  for (auto t = begin; t != end; ++t) (*t)->state = Thread::State::kReady;
  ++epoch_;
  ordering_.pass_barrier();
}

Thread& Machine::running(const Site& site) {
  if (!thread_) throw Error(Kind::kLaunch, line(site) + ": a call of the device outside of a kernel");
  if (++calls_ > kMostCalls) {
    calls_ = 0;  // for fail
    fail(Kind::kEndless, site,
         "the thread does not end; blocks run one after the other and cannot wait for one another");
  }
  return *thread_;
}

void Machine::collect(Collective collective, void* payload, const Site& site) {
  Thread& thread = running(site);
  thread.collective = collective;
  thread.payload = payload;
  thread.site = site;
  thread.state = Thread::State::kCollective;
  wait();
}

void Machine::barrier(const Site& site) {
  Thread& thread = running(site);
  thread.site = site;
  thread.state = Thread::State::kBarrier;
  wait();
}

void Machine::use_shared(std::size_t bytes, const Site& site) {
  shared_bytes_ += bytes;
  if (shared_bytes_ > kSharedBytes) {
    fail(Kind::kSharedMemory, site,
         "the block's shared memory comes to " + std::to_string(shared_bytes_) + " bytes or more; it has " +
             std::to_string(kSharedBytes));
  }
}

uint3 Machine::index_of(std::uint32_t number, const dim3& shape) {
  return {number % shape.x, number / shape.x % shape.y, number / shape.x / shape.y};
}

std::string Machine::name(std::uint32_t block, std::uint32_t thread) {
  std::ostringstream out;
  out << "thread " << index_of(thread, blockDim) << " of block " << index_of(block, gridDim);
  return out.str();
}

std::string Machine::where(const Thread& thread, const Site& site) const {
  std::ostringstream out;
  out << "kernel " << kernel_ << ", block " << blockIdx << ", thread " << thread.index << " (warp "
      << thread.warp() << ", lane " << thread.lane() << "), " << line(site) << ": ";
  return out.str();
}

void Machine::fail(Kind kind, const Site& site, const std::string& what) {
  throw Error(kind, where(running(site), site) + what);
}

void Machine::fail_lane(Kind kind, unsigned lane, const std::string& what) {
  const Thread& thread = *threads_[meeting_warp_ * kLanes + lane];
  throw Error(kind, where(thread, thread.site) + what);
}

void set_order(std::uint64_t seed) {
  Machine::get().set_order(seed);
}

const Traffic& last_traffic() {
  return Machine::get().traffic().traffic();
}

std::size_t last_shared_bytes() {
  return Machine::get().shared_bytes();
}

void run_grid(const char* kernel, dim3 grid, dim3 block, void (*body)(const void*), const void* arguments) {
  Machine::get().run(kernel, grid, block, body, arguments);
}

}  // namespace bidtrie::emulator
