// Fibres: they stop in their middle and go on, keep what they hold, and throw within themselves.

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "emulator/fibre.h"

using bidtrie::emulator::Fibre;

namespace {

struct Work {
  std::vector<int> seen;
  double sum = 0;
  int rounds = 0;
  bool caught = false, aligned = true;
};

void count(void* argument) {
  Work& work = *static_cast<Work*>(argument);
  const auto held = std::make_unique<std::string>("longer than a string keeps in itself");
  double running = 0.5;  // in a register or on the fibre's stack
  for (int i = 0; i < work.rounds; ++i) {
    alignas(32) volatile char here[32] = {};
    work.aligned = work.aligned && reinterpret_cast<std::uintptr_t>(&here[0]) % 32 == 0;
    work.seen.push_back(i);
    running += i;
    Fibre::pause();
  }
  try {
    throw std::runtime_error(*held);
  } catch (const std::runtime_error& error) {
    work.caught = error.what() == *held;
  }
  work.sum = running;
}

void takes_turns() {
  constexpr int kFibres = 100;
  std::vector<std::unique_ptr<Fibre>> fibres;
  std::vector<Work> works(kFibres);
  for (int f = 0; f < kFibres; ++f) {
    fibres.push_back(std::make_unique<Fibre>());
    works[static_cast<std::size_t>(f)].rounds = f;
  }
  for (int again = 1; again <= 2; ++again) {  // a fibre that has ended can start anew
    for (int round = 0; round < kFibres; ++round) {
      for (std::size_t f = 0; f < kFibres; ++f) {
        if (round <= works[f].rounds) fibres[f]->resume(count, &works[f]);
      }
    }
    for (int f = 0; f < kFibres; ++f) {
      const Work& work = works[static_cast<std::size_t>(f)];
      CHECK(work.caught && work.aligned);
      CHECK(work.sum == 0.5 + f * (f - 1) / 2);
      CHECK(work.seen.size() == static_cast<std::size_t>(again * f));
      if (f) CHECK(work.seen.back() == f - 1);
    }
  }
}

void outer(void* argument) {
  Work& work = *static_cast<Work*>(argument);
  Fibre inner;
  Work inside;
  inside.rounds = 2;
  for (int i = 0; i < 3; ++i) {
    inner.resume(count, &inside);
    Fibre::pause();  // out of the outer one, though the inner one paused last
    work.seen.push_back(static_cast<int>(inside.seen.size()));
  }
  work.caught = inside.caught;
}

void nests() {
  Fibre fibre;
  Work work;
  for (int i = 0; i < 4; ++i) fibre.resume(outer, &work);
  CHECK((work.seen == std::vector<int>{1, 2, 2}) && work.caught);
}

}  // namespace

int main() {
  takes_turns();
  nests();
}
