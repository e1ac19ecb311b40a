// All threads run every job once, and nobody passes a barrier before everyone is there.

#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "thread_team.h"

namespace {

void phases(int threads, int rounds) {
  bidtrie::ThreadTeam team(threads);
  CHECK(team.size() == threads);
  std::vector<long> slots(static_cast<std::size_t>(threads), 0);
  for (int round = 0; round < rounds; ++round) {
    bool wrong = false;
    auto job = [&](int thread) {
      const auto mine = static_cast<std::size_t>(thread);
      for (long phase = 1; phase <= 3; ++phase) {
        slots[mine] += phase;
        team.barrier();
        // Plain variables, written by one thread and read by all: the barrier orders them, or ThreadSanitizer
        // objects.
        for (const long slot : slots) {
          if (slot != slots[mine]) wrong = true;
        }
        team.barrier();
      }
    };
    team.run(job);
    CHECK(!wrong);
    for (const long slot : slots) CHECK(slot == 6L * (round + 1));
  }
}

void wakes_from_sleep() {
  bidtrie::ThreadTeam team(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    int ran[3] = {0, 0, 0};
    auto job = [&](int thread) {
      if (thread == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the others sleep in the barrier
      team.barrier();
      ran[thread] = 1;
    };
    team.run(job);
    CHECK(ran[0] + ran[1] + ran[2] == 3);
  }
}

}  // namespace

int main() {
  phases(1, 10);
  phases(2, 500);
  phases(5, 50);
  wakes_from_sleep();
  for (int i = 0; i < 20; ++i) bidtrie::ThreadTeam idle(4);
}
