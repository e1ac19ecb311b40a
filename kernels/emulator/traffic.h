#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "emulator/error.h"

namespace bidtrie::emulator {

/// How a thread reaches global memory: load_once… (weights), load, load_fresh, copy16, store, count_up.
enum class Way { kLoadOnce, kLoad, kLoadFresh, kCopy, kStore, kCount };
constexpr std::size_t kWays = 6;

/// What went one way in a launch.
struct Moved {
  std::uint64_t accesses = 0;  ///< of a warp: what its lanes do at one line, the nth time each, is one access
  std::uint64_t requested = 0;  ///< bytes that threads asked for
  std::uint64_t sectors = 0;    ///< 32-byte sectors touched, each counted once an access
  std::uint64_t unique = 0;     ///< different bytes touched: what must be moved at least

  /// Bytes that the accesses move if no first-level cache helps; a second-level cache may spare DRAM some.
  std::uint64_t moved() const { return 32 * sectors; }
};

/// Global memory traffic of a launch, by way.
class Traffic {
 public:
  const Moved& operator[](Way way) const { return moved_[static_cast<std::size_t>(way)]; }
  Moved& operator[](Way way) { return moved_[static_cast<std::size_t>(way)]; }

 private:
  std::array<Moved, kWays> moved_{};
};

/// Puts what lanes do, one after the other, together to the accesses of warps. Where lanes take different
/// branches through one line this is an approximation: a GPU would make an access of each branch.
class TrafficCounter {
 public:
  /// Forgets the traffic of the launch before.
  void start(unsigned warps);
  void access(Way way, unsigned warp, unsigned lane, std::uintptr_t address, std::size_t bytes,
              const Site& site);
  void unique(Way way, std::size_t bytes) { traffic_[way].unique += bytes; }
  /// Closes what lanes that are not there, or not active, did not join.
  void end_block();
  const Traffic& traffic() const { return traffic_; }

 private:
  struct Line {
    const char* file;
    unsigned line, column;
    Way way;
    bool operator==(const Line&) const = default;
  };
  struct LineHash {
    std::size_t operator()(const Line& l) const;
  };
  /// An access that not all lanes have joined yet.
  struct Open {
    unsigned lanes = 0;
    std::vector<std::uintptr_t> sectors;  // each once
  };
  /// A warp's accesses at one line.
  struct Accesses {
    std::array<std::uint32_t, 32> done{};  // by lane
    std::uint32_t closed = 0;              // all before are
    std::vector<Open> open;
  };

  void close(Way way, const Open& open);

  Traffic traffic_;
  std::unordered_map<Line, std::vector<Accesses>, LineHash> lines_;
  unsigned warps_ = 0;
};

}  // namespace bidtrie::emulator
