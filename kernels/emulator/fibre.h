#pragma once

#include <cstddef>
#include <memory>

namespace bidtrie::emulator {

/// A function with a stack of its own that can stop in its middle and go on later, on one host thread.
///
/// `body` may be started again once it has ended. It must not leak exceptions, and must not pause inside a
/// catch block.
class Fibre {
 public:
  Fibre();
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  /// Calls body(argument), or goes on where it paused; returns when it pauses or ends.
  void resume(void (*body)(void*), void* argument);

  /// Inside a fibre: returns to the caller of resume().
  static void pause();

 private:
  struct State;
  [[noreturn]] static void run();
  std::unique_ptr<State> state_;
};

}  // namespace bidtrie::emulator
