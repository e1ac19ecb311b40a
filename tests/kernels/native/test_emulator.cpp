// The emulator runs right kernels rightly: shapes, collectives, shared memory, copies, meeting over a
// counter, traffic.

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "device.cuh"

namespace {

using bidtrie::emulator::Buffer;
using bidtrie::emulator::Moved;
using bidtrie::emulator::Way;
using namespace bidtrie::cuda;

constexpr std::uint64_t kSeeds = 8;

int thread_index() {
  return static_cast<int>(threadIdx.x);
}

// -- Shapes

__global__ void who(std::uint32_t* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  store(out + block * threads + thread, block << 16 | thread);
}

void every_thread_runs_once() {
  const dim3 grid(3, 2, 5), block(4, 3, 7);
  Buffer<std::uint32_t> out(30 * 84);
  BIDTRIE_LAUNCH(who, grid, block, nullptr, out.get());
  const auto values = out.read();
  for (unsigned i = 0; i < values.size(); ++i) CHECK(values[i] == (i / 84 << 16 | i % 84));
}

__global__ void arrive(std::uint32_t* counter, std::uint32_t* place) {
  store(place + blockIdx.x, count_up(counter));
}

void order_is_drawn_from_the_seed() {
  std::set<std::vector<std::uint32_t>> orders;
  std::vector<std::uint32_t> first;
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      bidtrie::emulator::set_order(seed);
      Buffer<std::uint32_t> counter({0}), place(16);
      BIDTRIE_LAUNCH(arrive, 16, 1, nullptr, counter.get(), place.get());
      std::vector<std::uint32_t> order = place.read();
      if (seed == 0 && round == 0) first = order;
      if (seed == 0) CHECK(order == first);
      orders.insert(order);
      std::sort(order.begin(), order.end());
      for (unsigned i = 0; i < 16; ++i) CHECK(order[i] == i);
      CHECK(counter.read()[0] == 16);
    }
  }
  CHECK(orders.size() == kSeeds);
}

// -- Collectives

template <class T>
__global__ void shuffles(const T* values, T* across, T* from_next, std::uint32_t* votes) {
  const T mine = load(values + threadIdx.x);
  T sum = mine;
#pragma unroll
  for (int far = 1; far < 32; far *= 2) sum += shuffle_xor(sum, far);
  const T next = shuffle(mine, (thread_index() + 1) % 32);
  const std::uint32_t vote = ballot(mine > T{10});
  store(across + threadIdx.x, sum);
  store(from_next + threadIdx.x, next);
  store(votes + threadIdx.x, vote);
}

template <class T>
void lanes_exchange() {
  std::vector<T> values(96);
  std::mt19937 random(3);
  for (T& v : values) v = static_cast<T>(random() % 20);  // sums are exact in any order
  Buffer<T> in(values), across(96), from_next(96);
  Buffer<std::uint32_t> votes(96);
  BIDTRIE_LAUNCH(shuffles<T>, 1, 96, nullptr, in.get(), across.get(), from_next.get(), votes.get());
  for (std::size_t i = 0; i < 96; ++i) {
    const std::size_t warp = i / 32 * 32;
    T sum = 0;
    std::uint32_t vote = 0;
    for (std::size_t l = 0; l < 32; ++l) {
      sum += values[warp + l];
      vote |= static_cast<std::uint32_t>(values[warp + l] > T{10}) << l;
    }
    CHECK(across.read()[i] == sum);
    CHECK(from_next.read()[i] == values[warp + (i + 1) % 32]);
    CHECK(votes.read()[i] == vote);
  }
}

// -- Shared memory

template <int N>
__global__ void reverse(const float* x, float* out) {
  __shared__ Shared<float, N> values;
  for (int round = 0; round < 3; ++round) {
    values.set(thread_index(), load(x + blockIdx.x * N + threadIdx.x) + static_cast<float>(round));
    sync_block();
    const float other = values.get(N - 1 - thread_index());
    sync_block();
    if (round == 2) store(out + blockIdx.x * N + threadIdx.x, other);
  }
}

void shared_memory_is_the_blocks() {
  constexpr int kThreads = 200;
  std::vector<float> x(5 * kThreads);
  std::iota(x.begin(), x.end(), 1.0f);
  Buffer<float> in(x), out(x.size());
  BIDTRIE_LAUNCH(reverse<kThreads>, 5, kThreads, nullptr, in.get(), out.get());
  const auto values = out.read();
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(values[i] == x[i / kThreads * kThreads + kThreads - 1 - i % kThreads] + 2);
  }
  CHECK(bidtrie::emulator::last_shared_bytes() == kThreads * 4);
}

__global__ void widths(std::uint16_t* out) {
  __shared__ Shared<std::uint16_t, 64> values;
  values.set(2 * thread_index(), static_cast<std::uint16_t>(2 * thread_index()));
  values.set(2 * thread_index() + 1, static_cast<std::uint16_t>(2 * thread_index() + 1));
  sync_block();
  if (threadIdx.x < 8) {
    const Words4 four = values.get16(8 * thread_index());
    const Words2 two = values.get8(8 * thread_index() + 4);
    store(reinterpret_cast<Words4*>(out) + 2 * threadIdx.x, four);
    store(reinterpret_cast<Words2*>(out + 16 * threadIdx.x + 8), two);
    store(reinterpret_cast<std::uint32_t*>(out + 16 * threadIdx.x + 12), four.w[1]);
    store(out + 16 * threadIdx.x + 14, values.get(8 * thread_index() + 7));
    store(out + 16 * threadIdx.x + 15, values.get(8 * thread_index()));
  }
}

void wide_accesses_see_the_same_values() {
  Buffer<std::uint16_t> out(128);
  BIDTRIE_LAUNCH(widths, 1, 32, nullptr, out.get());
  const auto values = out.read();
  constexpr unsigned kOffsets[16] = {0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 2, 3, 7, 0};
  for (unsigned i = 0; i < 128; ++i) CHECK(values[i] == i / 16 * 8 + kOffsets[i % 16]);
}

// -- Copies: a pipeline of three stages, two groups ahead.

__global__ void pipeline(const float* x, float* out, int tiles, int valid) {
  constexpr int kStages = 3, kTile = 4 * 64;
  __shared__ Shared<float, kStages * kTile> staged;
  const auto start = [&](int tile) {
    const int at = tile * kTile + 4 * thread_index();
    const bool inside = tile < tiles && at < valid;
    if (tile < tiles)
      staged.copy16(tile % kStages * kTile + 4 * thread_index(), x + (inside ? at : 0), inside);
    copies_commit();
  };
  start(0);
  start(1);
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    copies_wait<1>();
    sync_block();
    start(tile + 2);  // the stage that all have read before the barrier
    for (int i = 0; i < 4; ++i) sum += staged.get(tile % kStages * kTile + 4 * (63 - thread_index()) + i);
  }
  store(out + threadIdx.x, sum);
}

void copies_arrive() {
  constexpr int kTiles = 7, kTile = 256, kValid = 6 * kTile + 100;
  std::vector<float> x(kValid);
  std::iota(x.begin(), x.end(), 1.0f);
  Buffer<float> in(x), out(64);
  BIDTRIE_LAUNCH(pipeline, 1, 64, nullptr, in.get(), out.get(), kTiles, kValid);
  const auto values = out.read();
  for (int thread = 0; thread < 64; ++thread) {
    float sum = 0;
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int i = 0; i < 4; ++i) {
        const int at = tile * kTile + 4 * (63 - thread) + i;
        sum += at < kValid ? x[static_cast<std::size_t>(at)] : 0;
      }
    }
    CHECK(values[static_cast<std::size_t>(thread)] == sum);
  }
}

// -- Blocks that meet over a counter

/// Who fences a block's partial sums: every thread its own, one for all, or every thread and most of them
/// again when it no longer matters.
enum class Fencing { kAll, kOne, kTwice };

__global__ void split_sum(const float* x, float* partials, std::uint32_t* counter, float* out,
                          Fencing fencing) {
  __shared__ Shared<std::uint32_t, 1> before;
  const unsigned n = blockDim.x;
  store(partials + blockIdx.x * n + threadIdx.x, load(x + blockIdx.x * n + threadIdx.x));
  if (fencing != Fencing::kOne) fence();
  sync_block();
  if (fencing == (threadIdx.x == 0 ? Fencing::kOne : Fencing::kTwice)) fence();
  if (threadIdx.x == 0) {
    before.set(0, count_up(counter));
    if (before.get(0) == gridDim.x - 1) store(counter, 0u);
  }
  sync_block();
  if (before.get(0) != gridDim.x - 1) return;
  float sum = 0;
  for (unsigned part = 0; part < gridDim.x; ++part) {
    sum += load_fresh(partials + part * n + (threadIdx.x + 1) % n);
  }
  store(out + threadIdx.x, sum);
}

void blocks_meet() {
  std::vector<float> x(6 * 40);
  std::iota(x.begin(), x.end(), 1.0f);
  Buffer<float> in(x), partials(x.size());
  Buffer<std::uint32_t> counter({0});
  for (const Fencing fencing : {Fencing::kAll, Fencing::kOne, Fencing::kTwice}) {
    Buffer<float> out(40);
    BIDTRIE_LAUNCH(split_sum, 6, 40, nullptr, in.get(), partials.get(), counter.get(), out.get(), fencing);
    for (std::size_t i = 0; i < 40; ++i) {
      float sum = 0;
      for (std::size_t part = 0; part < 6; ++part) sum += x[part * 40 + (i + 1) % 40];
      CHECK(out.read()[i] == sum);
    }
    CHECK(counter.read()[0] == 0);
  }
}

// -- Traffic

__global__ void read_strided(const float* x, float* out, int stride, int rounds) {
  float sum = 0;
  for (int r = 0; r < rounds; ++r) sum += load(x + stride * thread_index());
  store(out + threadIdx.x, sum);
}

__global__ void read_weights(const std::uint8_t* weights, const float* x, float* out, int lanes) {
  if (thread_index() % 32 >= lanes) return;
  const Words4 words = load_once16(weights + 16 * threadIdx.x);
  const Words2 two = load_once8(weights + 8 * threadIdx.x);
  const std::uint32_t one = load_once4(weights);
  store(out + threadIdx.x, load(x) + load_fresh(x + 1) + static_cast<float>(words.w[0] + two.w[0] + one));
}

void is(const Moved& moved, std::uint64_t accesses, std::uint64_t requested, std::uint64_t sectors,
        std::uint64_t unique) {
  CHECK(moved.accesses == accesses);
  CHECK(moved.requested == requested);
  CHECK(moved.sectors == sectors && moved.moved() == 32 * sectors);
  CHECK(moved.unique == unique);
}

void traffic_is_counted() {
  const auto moved = [](Way way) { return bidtrie::emulator::last_traffic()[way]; };
  Buffer<float> x(std::vector<float>(64 * 32, 1.0f)), out(64);
  // 2 warps, coalesced: 128 bytes are 4 sectors.
  BIDTRIE_LAUNCH(read_strided, 1, 64, nullptr, x.get(), out.get(), 1, 1);
  is(moved(Way::kLoad), 2, 256, 8, 256);
  is(moved(Way::kStore), 2, 256, 8, 256);
  is(moved(Way::kLoadOnce), 0, 0, 0, 0);
  // All lanes at one place: a sector each time.
  BIDTRIE_LAUNCH(read_strided, 1, 64, nullptr, x.get(), out.get(), 0, 5);
  is(moved(Way::kLoad), 10, 1280, 10, 4);
  // A sector for every lane, read three times.
  BIDTRIE_LAUNCH(read_strided, 1, 64, nullptr, x.get(), out.get(), 32, 3);
  is(moved(Way::kLoad), 6, 768, 192, 256);
  // Off by one: a fifth sector for each warp. In two blocks each, of the same bytes.
  BIDTRIE_LAUNCH(read_strided, 1, 64, nullptr, x.get() + 1, out.get(), 1, 1);
  is(moved(Way::kLoad), 2, 256, 10, 256);
  // 4 and 3 of a warp's lanes are no reason to count less than an access.
  Buffer<std::uint8_t> weights(std::vector<std::uint8_t>(1024));
  BIDTRIE_LAUNCH(read_weights, 1, 36, nullptr, weights.get(), x.get(), out.get(), 32);
  is(moved(Way::kLoadOnce), 6, 36 * 28, (16 + 2) + (8 + 1) + 2, 36 * 16);
  is(moved(Way::kLoad), 2, 36 * 4, 2, 4);
  is(moved(Way::kLoadFresh), 2, 36 * 4, 2, 4);
  BIDTRIE_LAUNCH(read_weights, 1, 32, nullptr, weights.get(), x.get(), out.get(), 3);
  is(moved(Way::kLoadOnce), 3, 3 * 28, 2 + 1 + 1, 48);
  // Copies and counters.
  Buffer<float> sums(64);
  BIDTRIE_LAUNCH(pipeline, 1, 64, nullptr, x.get(), sums.get(), 2, 512 - 4);
  is(moved(Way::kCopy), 4, 2048 - 16, 64, 2048 - 16);
  Buffer<std::uint32_t> counter({0}), place(5);
  BIDTRIE_LAUNCH(arrive, 5, 1, nullptr, counter.get(), place.get());
  is(moved(Way::kCount), 5, 20, 5, 4);
}

// -- The host's side

void buffers_hold() {
  Buffer<int> values({1, 2, 3});
  CHECK(reinterpret_cast<std::uintptr_t>(values.get()) % 256 == 0);
  values.write(std::vector<int>{7, 8}, 1);
  CHECK((values.read() == std::vector<int>{1, 7, 8}));
  Buffer<int> moved = std::move(values);
  CHECK((moved.read() == std::vector<int>{1, 7, 8}));
  Buffer<int> nothing(0);
  CHECK(nothing.read().empty());
}

}  // namespace

int main() {
  buffers_hold();
  order_is_drawn_from_the_seed();
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    bidtrie::emulator::set_order(seed);
    every_thread_runs_once();
    lanes_exchange<int>();
    lanes_exchange<float>();
    lanes_exchange<double>();
    shared_memory_is_the_blocks();
    wide_accesses_see_the_same_values();
    copies_arrive();
    blocks_meet();
    traffic_is_counted();
  }
}
