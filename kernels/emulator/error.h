#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace bidtrie::emulator {

/// What a kernel did wrong.
enum class Kind {
  kLaunch,               ///< grid, block or use of the emulator that no GPU takes
  kOutOfBounds,          ///< in no buffer, or an index outside of a Shared
  kNotDeviceMemory,      ///< an address of the host, or none
  kMisaligned,           ///< an address that is no multiple of the access's width
  kUninitialised,        ///< bytes that nobody wrote
  kRace,                 ///< two threads at one place, at least one writing, with nothing to order them
  kReadOnlyWritten,      ///< written in a launch that also reads it through load, load_once… or copy16
  kCopyUnderWay,         ///< shared memory touched while a copy to it has not been waited for
  kDivergentCollective,  ///< lanes of a warp that do not meet in one collective
  kDivergentBarrier,     ///< threads of a block that do not meet in one sync_block
  kLane,                 ///< a lane number outside 0 … 31
  kPositions,            ///< positions of a sparse multiplication that do not ascend
  kEndless,              ///< a thread that goes on and on, as one does that waits for another block
  kSharedMemory,         ///< more static shared memory than a block may have
};

/// The kernel is wrong; the message says where (kernel, block, thread, line of the source) and what.
class Error : public std::runtime_error {
 public:
  Error(Kind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

/// The line of a kernel that calls the device.
using Site = std::source_location;

}  // namespace bidtrie::emulator
