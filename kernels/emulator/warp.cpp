#include "emulator/warp.h"

#include <string>

#include "emulator/machine.h"

namespace bidtrie::emulator {

namespace {

struct Shuffle {
  std::uint64_t bits;
  int from;
  std::uint64_t result;
};

struct Ballot {
  bool condition;
  std::uint32_t result;
};

}  // namespace

std::uint64_t shuffle_bits(std::uint64_t bits, int from, const Site& site) {
  Machine& machine = Machine::get();
  if (from < 0 || from >= static_cast<int>(kLanes)) {
    machine.fail(Kind::kLane, site, "shuffle from lane " + std::to_string(from) + " of 32");
  }
  Shuffle mine{bits, from, 0};
  machine.collect(
      [](const std::array<void*, kLanes>& payloads) {
        for (void* const payload : payloads) {
          Shuffle& one = *static_cast<Shuffle*>(payload);
          one.result = static_cast<Shuffle*>(payloads[static_cast<std::size_t>(one.from)])->bits;
        }
      },
      &mine, site);
  return mine.result;
}

std::uint32_t ballot_bits(bool condition, const Site& site) {
  Ballot mine{condition, 0};
  Machine::get().collect(
      [](const std::array<void*, kLanes>& payloads) {
        std::uint32_t result = 0;
        for (unsigned lane = 0; lane < kLanes; ++lane) {
          result |= static_cast<std::uint32_t>(static_cast<Ballot*>(payloads[lane])->condition) << lane;
        }
        for (void* const payload : payloads) static_cast<Ballot*>(payload)->result = result;
      },
      &mine, site);
  return mine.result;
}

void sync_threads(const Site& site) {
  Machine::get().barrier(site);
}

int lane(const Site& site) {
  return static_cast<int>(Machine::get().running(site).lane());
}

}  // namespace bidtrie::emulator
