// Planted bugs: the emulator stops each with the right kind of error, in every order of threads that is
// tried, and lets the same kernel without the bug pass. A kernel's last argument says which of the two it is.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "check.h"
#include "device.cuh"

namespace {

using bidtrie::emulator::Buffer;
using bidtrie::emulator::Error;
using bidtrie::emulator::Kind;
using namespace bidtrie::cuda;

constexpr std::uint64_t kSeeds = 12;

/// run(true) is stopped with one of these kinds and a message with `part` in it, run(false) is not.
void planted(const char* name, const std::vector<Kind>& kinds, const char* part,
             const std::function<void(bool)>& run) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    bidtrie::emulator::set_order(seed);
    try {
      run(false);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s, without the bug, seed %d: %s\n", name, static_cast<int>(seed), error.what());
      std::exit(1);
    }
    bool caught = false;
    try {
      run(true);
    } catch (const Error& error) {
      caught = std::find(kinds.begin(), kinds.end(), error.kind()) != kinds.end() &&
               std::string(error.what()).find(part) != std::string::npos;
      if (!caught) std::fprintf(stderr, "kind %d: %s\n", static_cast<int>(error.kind()), error.what());
    }
    if (!caught) {
      std::fprintf(stderr, "%s, seed %d: not caught as it should\n", name, static_cast<int>(seed));
      std::exit(1);
    }
  }
}

int thread_index() {
  return static_cast<int>(threadIdx.x);
}

Buffer<float> ones(std::size_t n) {
  return Buffer<float>(std::vector<float>(n, 1.0f), "ones");
}

// -- Global memory

__global__ void copy_floats(const float* x, float* out, int n, bool faulty) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n || faulty) store(out + i, load(x + i));
}

__global__ void copy_words(const float* x, float* out, int first) {
  store(reinterpret_cast<Words4*>(out), load(reinterpret_cast<const Words4*>(x + first)));
}

__global__ void copy_weights(const std::uint8_t* x, Words4* out, int first) {
  store(out, load_once16(x + first));
}

__global__ void read_rows(const float* x, float* out, int rows, int row_floats, bool faulty) {
  const int last = rows - 1;
  const std::int64_t right = std::int64_t{last} * row_floats;
  const auto wrapped =
      static_cast<std::int32_t>(static_cast<std::uint32_t>(last) * static_cast<std::uint32_t>(row_floats));
  // `x` is a window into the large matrix, right / 4 * 4 floats in.
  store(out, load(x + (faulty ? std::int64_t{wrapped} - right : 0)));
}

void global_memory() {
  planted("read out of bounds", {Kind::kOutOfBounds}, "bytes after the end of ones (400 bytes)",
          [](bool faulty) {
            Buffer<float> x = ones(100), out(128);
            BIDTRIE_LAUNCH(copy_floats, 4, 32, nullptr, x.get(), out.get(), 100, faulty);
          });
  planted("write out of bounds", {Kind::kOutOfBounds}, "store of 4 bytes", [](bool faulty) {
    Buffer<float> x = ones(128), out(100);
    BIDTRIE_LAUNCH(copy_floats, 4, 32, nullptr, x.get(), out.get(), 100, faulty);
  });
  planted("read over the end", {Kind::kOutOfBounds}, "byte 400 of ones, which has 404", [](bool faulty) {
    Buffer<float> x = ones(101), out(4);
    BIDTRIE_LAUNCH(copy_words, 1, 1, nullptr, x.get(), out.get(), faulty ? 100 : 96);
  });
  planted("read before the start", {Kind::kOutOfBounds}, "16 bytes before ones", [](bool faulty) {
    Buffer<float> x = ones(8), out(4);
    BIDTRIE_LAUNCH(copy_words, 1, 1, nullptr, x.get(), out.get(), faulty ? -4 : 4);
  });
  planted("misaligned", {Kind::kMisaligned}, "byte 12 of ones, which is no multiple of 16", [](bool faulty) {
    Buffer<float> x = ones(8), out(4);
    BIDTRIE_LAUNCH(copy_words, 1, 1, nullptr, x.get(), out.get(), faulty ? 3 : 4);
  });
  planted("misaligned weights", {Kind::kMisaligned}, "load_once of 16 bytes", [](bool faulty) {
    Buffer<std::uint8_t> x(std::vector<std::uint8_t>(64));
    Buffer<Words4> out(1);
    BIDTRIE_LAUNCH(copy_weights, 1, 1, nullptr, x.get(), out.get(), faulty ? 24 : 16);
  });
  planted("misaligned write", {Kind::kMisaligned}, "store of 16 bytes", [](bool faulty) {
    Buffer<float> x = ones(8), out(8);
    BIDTRIE_LAUNCH(copy_words, 1, 1, nullptr, x.get(), out.get() + (faulty ? 1 : 4), 0);
  });
  planted("read of what nobody wrote", {Kind::kUninitialised}, "byte 256 of half", [](bool faulty) {
    Buffer<float> x(128, "half"), out(128);
    x.write(std::vector<float>(faulty ? 64 : 128, 1.0f));
    BIDTRIE_LAUNCH(copy_floats, 1, 65, nullptr, x.get(), out.get(), 128, false);
  });
  planted("hole in the output", {Kind::kUninitialised}, "the host reads byte 396", [](bool faulty) {
    Buffer<float> x = ones(100), out(100);
    BIDTRIE_LAUNCH(copy_floats, 4, 32, nullptr, x.get(), out.get(), faulty ? 99 : 100, false);
    out.read();
  });
  planted("32-bit offset", {Kind::kOutOfBounds}, "load of 4 bytes", [](bool faulty) {
    Buffer<float> x = ones(1), out(1);
    BIDTRIE_LAUNCH(read_rows, 1, 1, nullptr, x.get(), out.get(), 70000, 70000, faulty);
  });
  planted("buffer that is gone", {Kind::kOutOfBounds}, "load of 4 bytes", [](bool faulty) {
    Buffer<float> x = ones(32), out(32);
    const float* p = x.get();
    if (faulty) Buffer<float>(0) = std::move(x);
    BIDTRIE_LAUNCH(copy_floats, 1, 32, nullptr, p, out.get(), 32, false);
  });
  planted("memory of the host", {Kind::kNotDeviceMemory}, "no device memory", [](bool faulty) {
    const std::vector<float> host(32);
    Buffer<float> x = ones(32), out(32);
    BIDTRIE_LAUNCH(copy_floats, 1, 32, nullptr, faulty ? host.data() : x.get(), out.get(), 32, false);
  });
  planted("null", {Kind::kNotDeviceMemory}, "address 0x0,", [](bool faulty) {
    Buffer<float> x = ones(32), out(32);
    BIDTRIE_LAUNCH(copy_floats, 1, 1, nullptr, faulty ? nullptr : x.get(), out.get(), 32, false);
  });
}

__global__ void follow(const float* x, float* out) {
  store(out, *x);
}

// Past load… and store… the emulator cannot look: so the address leads nowhere.
void plain_access_crashes() {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);  // a sanitizer's report
    Buffer<float> x = ones(1), out(1);
    BIDTRIE_LAUNCH(follow, 1, 1, nullptr, x.get(), out.get());
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

// -- Global memory that several threads use

__global__ void same_place(float* out, bool faulty) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  store(out + (faulty && i == gridDim.x * blockDim.x - 1 ? 0 : i), 1.0f);
}

__global__ void read_neighbours(float* x, float* out, bool faulty) {
  if (faulty || threadIdx.x < 32) store(x + (threadIdx.x + (faulty ? 0 : 64)), 2.0f);
  store(out + threadIdx.x, load(x + threadIdx.x / 2));
}

__global__ void hand_over(float* x, float* out, bool faulty) {
  store(x + threadIdx.x, static_cast<float>(threadIdx.x));
  if (!faulty) sync_block();
  store(out + threadIdx.x, load_fresh(x + (threadIdx.x + 40) % blockDim.x));
}

__global__ void overwrite(float* x, float* out, bool faulty) {
  store(out + threadIdx.x, load_fresh(x + (threadIdx.x + 40) % blockDim.x));
  if (!faulty) sync_block();
  store(x + threadIdx.x, 0.0f);
}

/// What a meeting over a counter may lack.
enum class Lack { kNothing, kFence, kBarrierBefore, kCount };

__global__ void meet(float* partials, std::uint32_t* counter, float* out, Lack lack) {
  __shared__ Shared<std::uint32_t, 1> before;
  const unsigned n = blockDim.x;
  store(partials + blockIdx.x * n + threadIdx.x, 1.0f);
  if (lack != Lack::kFence) fence();
  if (lack != Lack::kBarrierBefore) sync_block();
  if (threadIdx.x == 0) before.set(0, lack == Lack::kCount ? gridDim.x - 1 : count_up(counter));
  sync_block();
  if (before.get(0) != gridDim.x - 1) return;
  if (threadIdx.x == 0 && lack != Lack::kCount) store(counter, 0u);
  if (threadIdx.x == n - 1) {
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x * n; ++i) sum += load_fresh(partials + i);
    store(out, sum);
  }
}

// Two accesses by two threads, and no others: each order of the two has its own check.

/// How the two threads of a pair reach their place.
enum class Access { kLoad, kLoadFresh, kStore, kCount };

__device__ std::uint32_t reach(Access access, std::uint32_t* p) {
  switch (access) {
    case Access::kLoad:
      return load(p);
    case Access::kLoadFresh:
      return load_fresh(p);
    case Access::kCount:
      return count_up(p);
    case Access::kStore:
      store(p, 7u);
  }
  return 0;
}

__global__ void pair(std::uint32_t* place, Access first, Access second, bool faulty) {
  if (blockIdx.x * blockDim.x + threadIdx.x == 5) reach(first, place);
  if (blockIdx.x * blockDim.x + threadIdx.x == 40) reach(second, place + (faulty ? 0 : 1));
}

__global__ void two_read_one_writes(float* x, bool faulty) {
  if (threadIdx.x == 5 || threadIdx.x == 40) load_fresh(x);
  if (!faulty) sync_block();
  if (threadIdx.x == 40) store(x, 2.0f);
}

/// In each block lane 5 has a result; lane 0 counts, and in the last block `reader` reads what the other
/// blocks have. Lanes run in the order that the ballots force, but ballots order no memory.
__global__ void meet_in_a_warp(float* partials, std::uint32_t* counter, int reader, bool barrier_before,
                               bool barrier_after) {
  if (threadIdx.x == 5) {
    store(partials + blockIdx.x, 1.0f);
    fence();
  }
  ballot(true);
  if (barrier_before) sync_block();
  std::uint32_t count = 0;
  if (threadIdx.x == 0) count = count_up(counter);
  count = shuffle(count, 0);
  if (barrier_after) sync_block();
  if (count != gridDim.x - 1 || thread_index() != reader) return;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    if (b != blockIdx.x) load_fresh(partials + b);
  }
}

void order_between_threads() {
  planted("two blocks, one place", {Kind::kRace}, "nothing to order the two", [](bool faulty) {
    Buffer<float> out(64);
    BIDTRIE_LAUNCH(same_place, 2, 32, nullptr, out.get(), faulty);
  });
  planted("two threads, one place", {Kind::kRace}, "nothing to order the two", [](bool faulty) {
    Buffer<float> out(64);
    BIDTRIE_LAUNCH(same_place, 1, 64, nullptr, out.get(), faulty);
  });
  planted("write of what is read as read-only", {Kind::kReadOnlyWritten}, "both writes and reads",
          [](bool faulty) {
            Buffer<float> x = ones(128), out(64);
            BIDTRIE_LAUNCH(read_neighbours, 1, 64, nullptr, x.get(), out.get(), faulty);
          });
  planted("no barrier after a store", {Kind::kRace}, "in the same launch", [](bool faulty) {
    Buffer<float> x = ones(64), out(64);
    BIDTRIE_LAUNCH(hand_over, 1, 64, nullptr, x.get(), out.get(), faulty);
  });
  planted("no barrier before a store", {Kind::kRace}, "in the same launch", [](bool faulty) {
    Buffer<float> x = ones(64), out(64);
    BIDTRIE_LAUNCH(overwrite, 1, 64, nullptr, x.get(), out.get(), faulty);
  });
  for (const Lack lack : {Lack::kFence, Lack::kBarrierBefore, Lack::kCount}) {
    planted("blocks that do not meet", {Kind::kRace}, "in the same launch", [lack](bool faulty) {
      Buffer<float> partials = ones(4 * 64), out(1);
      Buffer<std::uint32_t> counter({0});
      BIDTRIE_LAUNCH(meet, 4, 64, nullptr, partials.get(), counter.get(), out.get(),
                     faulty ? lack : Lack::kNothing);
      CHECK(out.read()[0] == 256);
    });
  }
  struct Pair {
    Access first, second;
    Kind kind;
  };
  for (const Pair& p : {Pair{Access::kLoad, Access::kStore, Kind::kReadOnlyWritten},
                        {Access::kLoad, Access::kCount, Kind::kReadOnlyWritten},
                        {Access::kLoadFresh, Access::kStore, Kind::kRace},
                        {Access::kStore, Access::kStore, Kind::kRace},
                        {Access::kCount, Access::kStore, Kind::kRace}}) {
    for (const unsigned blocks : {1u, 2u}) {
      planted("pair", {p.kind}, "", [&](bool faulty) {
        Buffer<std::uint32_t> place({0, 0});
        BIDTRIE_LAUNCH(pair, blocks, 64 / blocks, nullptr, place.get(), p.first, p.second, faulty);
      });
    }
  }
  planted("two read, one of them writes", {Kind::kRace}, "", [](bool faulty) {
    Buffer<float> x = ones(1);
    BIDTRIE_LAUNCH(two_read_one_writes, 1, 64, nullptr, x.get(), faulty);
  });
  planted("no barrier between another's fence and the count", {Kind::kRace}, "load_fresh", [](bool faulty) {
    Buffer<float> partials(4);
    Buffer<std::uint32_t> counter({0});
    BIDTRIE_LAUNCH(meet_in_a_warp, 4, 32, nullptr, partials.get(), counter.get(), 0, !faulty, true);
  });
  planted("no barrier between another's count and the read", {Kind::kRace}, "load_fresh", [](bool faulty) {
    Buffer<float> partials(4);
    Buffer<std::uint32_t> counter({0});
    BIDTRIE_LAUNCH(meet_in_a_warp, 4, 32, nullptr, partials.get(), counter.get(), 9, true, !faulty);
  });
}

// -- Shared memory

__global__ void shared_hole(float* out, bool faulty) {
  __shared__ Shared<float, 32> values;
  if (!faulty || threadIdx.x < 31) values.set(thread_index(), 1.0f);
  sync_block();
  store(out + blockIdx.x * 32 + threadIdx.x, values.get(31 - thread_index()));
}

__global__ void shared_of_the_block_before(float* out, bool faulty) {
  __shared__ Shared<float, 1> value;
  if (faulty && blockIdx.x == 0) return;
  const bool first = load(out) != 0;  // so that two launches of one block do the same
  if (first || !faulty) value.set(0, 1.0f);
  store(out + 1, value.get(0));
}

__global__ void shared_index(float* out, int shift) {
  __shared__ Shared<float, 32> values;
  values.set(thread_index() + shift, 1.0f);
  sync_block();
  store(out + threadIdx.x, values.get(thread_index()));
}

__global__ void shared_width(float* out, int first) {
  __shared__ Shared<float, 32> values;
  values.set(thread_index(), 1.0f);
  sync_block();
  store(reinterpret_cast<Words4*>(out) + threadIdx.x, values.get16(first));
}

__global__ void shared_hand_over(float* out, bool faulty) {
  __shared__ Shared<float, 64> values;
  values.set(thread_index(), 1.0f);
  sync_block();
  values.set(thread_index(), 2.0f);
  if (!faulty) sync_block();
  store(out + threadIdx.x, values.get((thread_index() + 40) % 64));
}

__global__ void shared_overwrite(float* out, bool faulty) {
  __shared__ Shared<float, 64> values;
  values.set(thread_index(), 1.0f);
  sync_block();
  const float other = values.get((thread_index() + 40) % 64);
  if (!faulty) sync_block();
  values.set(thread_index(), 2.0f);
  store(out + threadIdx.x, other);
}

__global__ void shared_within_a_warp(float* out, bool faulty) {
  __shared__ Shared<float, 32> values;
  values.set(thread_index(), 0.0f);
  sync_block();
  values.set(thread_index(), 1.0f);
  ballot(true);  // meets, but orders nothing
  if (!faulty) sync_block();
  store(out + threadIdx.x, values.get(31 - thread_index()));
}

__global__ void shared_same_place(float* out, bool faulty) {
  __shared__ Shared<float, 64> values;
  values.set(faulty ? thread_index() / 2 : thread_index(), 1.0f);
  sync_block();
  store(out + threadIdx.x, values.get(faulty ? 0 : thread_index()));
}

/// What two threads do to one shared value, the second of them after a barrier unless the kernel is faulty.
enum class Touch { kGet, kSet, kGetAndSet, kCopy };

__device__ void touch(Shared<float, 4>& values, Touch how, float* out) {
  if (how == Touch::kGet || how == Touch::kGetAndSet) store(out + threadIdx.x, values.get(0));
  if (how == Touch::kSet || how == Touch::kGetAndSet) values.set(0, 2.0f);
  if (how == Touch::kCopy) {
    values.copy16(0, nullptr, false);
    copies_commit();
    copies_wait<0>();
  }
}

__global__ void shared_pair(float* out, Touch first, Touch second, bool faulty) {
  __shared__ Shared<float, 4> values;
  if (threadIdx.x == 5) values.set(0, 1.0f);
  sync_block();
  if (threadIdx.x == 5) touch(values, first, out);
  if (!faulty) sync_block();
  if (threadIdx.x == 40) touch(values, second, out);
}

template <int N>
__global__ void shared_size(float* out) {
  __shared__ Shared<float, 6 * 1024> half;
  __shared__ Shared<float, N> rest;
  half.set(0, 1.0f);
  rest.set(N - 1, 1.0f);
  store(out, half.get(0) + rest.get(N - 1));
}

void shared_memory() {
  Buffer<float> out(256);
  planted("shared value that nobody wrote", {Kind::kUninitialised}, "shared value 31",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_hole, 2, 32, nullptr, out.get(), faulty); });
  planted("shared value of the block before", {Kind::kUninitialised}, "shared value 0", [](bool faulty) {
    for (const float first : {1.0f, 0.0f}) {
      Buffer<float> flags({first, 0.0f});
      BIDTRIE_LAUNCH(shared_of_the_block_before, faulty ? 2 : 1, 1, nullptr, flags.get(), faulty);
    }
  });
  planted("shared index too large", {Kind::kOutOfBounds}, "from value 32 on",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_index, 1, 32, nullptr, out.get(), faulty ? 1 : 0); });
  planted("shared index negative", {Kind::kOutOfBounds}, "from value -1 on",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_index, 1, 32, nullptr, out.get(), faulty ? -1 : 0); });
  planted("shared read over the end", {Kind::kOutOfBounds}, "of 16 bytes from value 30 on",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_width, 1, 32, nullptr, out.get(), faulty ? 30 : 28); });
  planted("shared read misaligned", {Kind::kMisaligned}, "from byte 104 on",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_width, 1, 32, nullptr, out.get(), faulty ? 26 : 24); });
  planted("no barrier after a shared write", {Kind::kRace}, "sync_block",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_hand_over, 1, 64, nullptr, out.get(), faulty); });
  planted("no barrier before a shared write", {Kind::kRace}, "sync_block",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_overwrite, 1, 64, nullptr, out.get(), faulty); });
  planted("no barrier within a warp", {Kind::kRace}, "sync_block",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_within_a_warp, 1, 32, nullptr, out.get(), faulty); });
  planted("two threads, one shared value", {Kind::kRace}, "writes too",
          [&](bool faulty) { BIDTRIE_LAUNCH(shared_same_place, 1, 64, nullptr, out.get(), faulty); });
  for (const auto& [first, second] : {std::pair(Touch::kGet, Touch::kSet),
                                      {Touch::kGet, Touch::kGetAndSet},
                                      {Touch::kGet, Touch::kCopy},
                                      {Touch::kSet, Touch::kSet},
                                      {Touch::kSet, Touch::kGet},
                                      {Touch::kSet, Touch::kCopy}}) {
    planted("shared pair", {Kind::kRace}, "", [&, first = first, second = second](bool faulty) {
      BIDTRIE_LAUNCH(shared_pair, 1, 64, nullptr, out.get(), first, second, faulty);
    });
  }
  planted("too much shared memory", {Kind::kSharedMemory}, "it has 49152", [&](bool faulty) {
    if (faulty) {
      BIDTRIE_LAUNCH(shared_size<6 * 1024 + 1>, 1, 1, nullptr, out.get());
    } else {
      BIDTRIE_LAUNCH(shared_size<6 * 1024>, 1, 1, nullptr, out.get());
      CHECK(bidtrie::emulator::last_shared_bytes() == 48 << 10);
    }
  });
}

// -- Copies

/// What a kernel that copies may do wrong.
enum class Slip {
  kNothing,
  kNoWait,
  kNoCommit,
  kWaitTooFew,
  kNoBarrier,
  kReadMeanwhile,
  kWriteMeanwhile,
  kStartTooEarly,
  kTarget,
  kSource,
};

__global__ void copies(const float* x, float* out, Slip slip) {
  __shared__ Shared<float, 2 * 256> staged;
  const int mine = 4 * thread_index(), other = (mine + 128) % 256;
  for (int stage = 0; stage < 2; ++stage) {
    for (int i = 0; i < 4; ++i) staged.set(256 * stage + mine + i, 0.0f);
  }
  sync_block();
  float sum = 0;
  if (slip == Slip::kStartTooEarly) sum += staged.get(other);  // of those who have not started yet
  staged.copy16(mine + (slip == Slip::kTarget ? 2 : 0), x + mine + (slip == Slip::kSource ? 1 : 0), true);
  if (slip != Slip::kNoCommit) copies_commit();
  staged.copy16(256 + mine, x + 256 + mine, true);
  copies_commit();
  if (slip == Slip::kReadMeanwhile) sum += staged.get(other);
  if (slip == Slip::kWriteMeanwhile) staged.set(mine, 1.0f);
  if (slip == Slip::kWaitTooFew) {
    copies_wait<2>();
  } else if (slip != Slip::kNoWait) {
    copies_wait<1>();
  }
  if (slip != Slip::kNoBarrier) sync_block();
  sum += slip == Slip::kNoBarrier ? staged.get(other) : staged.get(mine) + staged.get(other);
  copies_wait<0>();
  sync_block();
  store(out + threadIdx.x, sum + staged.get(256 + other));
}

void copies_under_way() {
  struct Case {
    const char* name;
    Slip slip;
    std::vector<Kind> kinds;
    const char* part;
  };
  // Of a copy and a read that nothing orders, either may come first.
  const std::vector<Kind> either = {Kind::kCopyUnderWay, Kind::kRace};
  for (const Case& c :
       {Case{"no wait", Slip::kNoWait, {Kind::kCopyUnderWay}, "read of shared value"},
        {"a group not ended", Slip::kNoCommit, {Kind::kCopyUnderWay}, "read of shared value"},
        {"wait for too few", Slip::kWaitTooFew, {Kind::kCopyUnderWay}, "read of shared value"},
        {"no barrier after the wait", Slip::kNoBarrier, either, "of the block"},
        {"read meanwhile", Slip::kReadMeanwhile, either, "of the block"},
        {"write meanwhile", Slip::kWriteMeanwhile, {Kind::kCopyUnderWay}, "write of shared value"},
        {"start before others have read", Slip::kStartTooEarly, either, "of the block"},
        {"misaligned target", Slip::kTarget, {Kind::kMisaligned}, "copy16 of 16 bytes of shared memory"},
        {"misaligned source", Slip::kSource, {Kind::kMisaligned}, "copy16 of 16 bytes at byte"}}) {
    planted(c.name, c.kinds, c.part, [&c](bool faulty) {
      Buffer<float> x = ones(512), out(64);
      BIDTRIE_LAUNCH(copies, 1, 64, nullptr, x.get(), out.get(), faulty ? c.slip : Slip::kNothing);
      for (const float sum : out.read()) CHECK(sum == 3);
    });
  }
}

// -- Threads that do not meet

/// Which threads go astray, and how.
enum class Astray { kNobody, kEnds, kElsewhere, kBarrier, kOtherKind };

__global__ void barrier(float* out, Astray how) {
  store(out + threadIdx.x, 1.0f);
  if (threadIdx.x == 5 && how == Astray::kEnds) return;
  if (threadIdx.x >= 32 && how == Astray::kElsewhere) {
    sync_block();
  } else {
    sync_block();
  }
}

// A macro, so that both are at one place of the source.
#define SHUFFLE_OR_VOTE(vote) (vote ? static_cast<int>(ballot(true)) : shuffle_xor(1, 1))

__global__ void collective(int* out, Astray how) {
  int value = thread_index();
  if (threadIdx.x == 37) {
    if (how == Astray::kEnds) return;
    if (how == Astray::kBarrier) sync_block();
    if (how == Astray::kElsewhere) value = shuffle_xor(value, 1);
  }
  value = shuffle_xor(value, 1);
  value += SHUFFLE_OR_VOTE(how == Astray::kOtherKind && threadIdx.x == 37);
  if (how == Astray::kBarrier && threadIdx.x != 37) sync_block();
  store(out + threadIdx.x, value);
}

__global__ void lanes(int* out, int from, int mask) {
  const int shuffled = shuffle(thread_index(), from);
  store(out + threadIdx.x, shuffled + shuffle_xor(thread_index(), mask));
}

__global__ void sum_of_lanes(const int* x, int* out, bool faulty) {
  int sum = load(x + threadIdx.x);
#pragma unroll
  for (int far = 1; far < 32; far *= 2) sum += shuffle_xor(sum, faulty && far == 8 ? 4 : far);
  store(out + threadIdx.x, sum);
}

__global__ void sparse(float* out, std::uint32_t positions) {
  float c[4] = {};
  const std::uint32_t a[4] = {}, b[4] = {};
  // Lanes 2 and 3 of each four hold nothing that counts.
  multiply_sparse_16x8x32<Float16>(c, a, b, threadIdx.x % 4 < 2 ? positions : 0u);
  for (unsigned i = 0; i < 4; ++i) store(out + 4 * threadIdx.x + i, c[i]);
}

void meetings() {
  Buffer<float> out(256);
  for (const auto& [how, part] :
       {std::pair(Astray::kEnds, "has ended"), {Astray::kElsewhere, "is in the one at"}}) {
    planted("barrier", {Kind::kDivergentBarrier}, part, [&, how = how](bool faulty) {
      BIDTRIE_LAUNCH(barrier, 1, 64, nullptr, out.get(), faulty ? how : Astray::kNobody);
    });
  }
  Buffer<int> values(64);
  for (const auto& [how, part] : {std::pair(Astray::kEnds, "lane 5 has ended"),
                                  {Astray::kBarrier, "lane 5 waits in sync_block at"},
                                  {Astray::kElsewhere, "is in the one at"},
                                  {Astray::kOtherKind, "is in the one at"}}) {
    planted("collective", {Kind::kDivergentCollective}, part, [&, how = how](bool faulty) {
      BIDTRIE_LAUNCH(collective, 1, 64, nullptr, values.get(), faulty ? how : Astray::kNobody);
    });
  }
  planted("part of a warp", {Kind::kDivergentCollective}, "the warp has only 16", [&](bool faulty) {
    BIDTRIE_LAUNCH(collective, 1, faulty ? 48 : 64, nullptr, values.get(), Astray::kNobody);
  });
  for (const int from : {32, -1}) {
    planted("lane out of range", {Kind::kLane}, "of 32", [&](bool faulty) {
      BIDTRIE_LAUNCH(lanes, 1, 32, nullptr, values.get(), faulty ? from : 31, 31);
    });
    planted("lane mask out of range", {Kind::kLane}, "of 32",
            [&](bool faulty) { BIDTRIE_LAUNCH(lanes, 1, 32, nullptr, values.get(), 0, faulty ? from : 31); });
  }
  // A wrong lane inside the range is for the kernel's own reference to see.
  std::vector<int> x(32);
  std::iota(x.begin(), x.end(), 1);
  Buffer<int> in(x), sums(32);
  BIDTRIE_LAUNCH(sum_of_lanes, 1, 32, nullptr, in.get(), sums.get(), false);
  for (const int sum : sums.read()) CHECK(sum == 528);
  BIDTRIE_LAUNCH(sum_of_lanes, 1, 32, nullptr, in.get(), sums.get(), true);
  for (const int sum : sums.read()) CHECK(sum != 528);

  for (const auto& [wrong, part] :
       {std::pair(0xeeeeeeeau, "positions 2 and 2"), {0x1eeeeeeeu, "positions 1 and 0"}}) {
    planted("positions", {Kind::kPositions}, part, [&, wrong = wrong](bool faulty) {
      BIDTRIE_LAUNCH(sparse, 1, 32, nullptr, out.get(), faulty ? wrong : 0xeeeeee49u);
    });
  }
}

// -- Launches

__global__ void nothing(int*) {}

__global__ void launches(int* out, bool faulty) {
  if (faulty) BIDTRIE_LAUNCH(nothing, 1, 1, nullptr, out);
}

__global__ void spin(const std::uint32_t* flag) {
  while (load_fresh(flag) == 0) {
  }
}

void a_thread_that_waits_for_another_block() {
  Buffer<std::uint32_t> flag({0});
  CHECK_THROWS(Error, "cannot wait for one another", (BIDTRIE_LAUNCH(spin, 1, 1, nullptr, flag.get()), 0));
  flag.write(std::vector<std::uint32_t>{1});
  BIDTRIE_LAUNCH(spin, 1, 1, nullptr, flag.get());
}

void shapes_and_uses() {
  Buffer<int> out(1);
  struct Shape {
    dim3 grid, block;
  };
  for (const Shape& shape : {Shape{1, 1025},
                             {1, 0},
                             {0, 1},
                             {1, {1, 1, 65}},
                             {1, {64, 32}},
                             {{1, 65536}, 1},
                             {{1, 1, 65536}, 1}}) {
    planted("shape", {Kind::kLaunch}, "kernel nothing: a ", [&](bool faulty) {
      BIDTRIE_LAUNCH(nothing, faulty ? shape.grid : dim3(1, 7, 3), faulty ? shape.block : dim3(16, 16, 4),
                     nullptr, out.get());
    });
  }
  planted("launch in a kernel", {Kind::kLaunch}, "launched while launches runs",
          [&](bool faulty) { BIDTRIE_LAUNCH(launches, 1, 1, nullptr, out.get(), faulty); });
  CHECK_THROWS(Error, "outside of a kernel", load(out.get()));
  CHECK_THROWS(Error, "outside of a kernel", (sync_block(), 0));
  static Shared<float, 4> shared;
  CHECK_THROWS(Error, "outside of a kernel", shared.get(0));
}

// -- After an error

int held = 0;

struct Holder {
  Holder() { ++held; }
  ~Holder() { --held; }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
};

__global__ void fails(float* out, int which, bool by_exception) {
  const Holder holder;
  const std::vector<int> memory(1000);
  __shared__ Shared<float, 256> values;
  values.copy16(4 * thread_index(), out, false);
  copies_commit();
  if (thread_index() == which) {
    if (by_exception) throw std::bad_alloc();
    load(out + 1000);
  }
  ballot(true);
  copies_wait<0>();
  sync_block();
  store(out + threadIdx.x, values.get(255 - thread_index()));
}

// Threads that wait, or have not begun, when another fails leave nothing behind.
void the_failed_leave_nothing() {
  Buffer<float> out = ones(64);
  planted("one thread fails", {Kind::kOutOfBounds}, "load of 4 bytes", [&](bool faulty) {
    try {
      BIDTRIE_LAUNCH(fails, 1, 64, nullptr, out.get(), faulty ? 7 : -1, false);
    } catch (const Error&) {
      CHECK(held == 0);
      throw;
    }
    CHECK(held == 0);
    for (const float value : out.read()) CHECK(value == 0);
    bool passed_on = false;
    try {
      BIDTRIE_LAUNCH(fails, 1, 64, nullptr, out.get(), 40, true);
    } catch (const std::bad_alloc&) {
      passed_on = true;
    }
    CHECK(passed_on && held == 0);
  });
}

__global__ void where(const float* x) {
  if (threadIdx.y == 2 && threadIdx.x == 9 && blockIdx.y == 1) load(x + 100);
}

void the_message_says_where() {
  Buffer<float> x = ones(100);
  CHECK_THROWS(Error,
               "kernel where, block (0, 1, 0), thread (9, 2, 0) (warp 1, lane 9), test_emulator_faults.cpp:",
               (BIDTRIE_LAUNCH(where, dim3(1, 2), dim3(16, 4), nullptr, x.get()), 0));
}

}  // namespace

int main() {
  plain_access_crashes();
  global_memory();
  order_between_threads();
  shared_memory();
  copies_under_way();
  meetings();
  shapes_and_uses();
  a_thread_that_waits_for_another_block();
  the_failed_leave_nothing();
  the_message_says_where();
}
