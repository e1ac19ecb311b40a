#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "emulator/error.h"
#include "words.h"

namespace bidtrie::emulator {

/// Shared memory of a block and what its threads have done with it, value by value. Nothing but sync_block
/// orders two threads here: collectives of a warp do not (as CUDA says of shuffles and votes).
class SharedMemory {
 public:
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  /// The end of a copy: the 16 bytes are there, for the thread that waited.
  void land(int i, std::uintptr_t from, std::uint32_t thread, std::uint32_t epoch);

 protected:
  SharedMemory(void* values, std::size_t width, std::size_t count)
      : values_(static_cast<std::byte*>(values)), width_(width), count_(count) {}
  ~SharedMemory() = default;

  void read(int i, std::size_t bytes, void* to, const Site& site) const;
  void write(int i, std::size_t bytes, const void* from, const Site& site);
  void copy(int i, const void* from, bool valid, const Site& site);

 private:
  struct Users {
    std::uint32_t write_epoch = 0, read_epoch = 0;  // 0: never, in this block
    std::uint16_t writer = 0, reader = 0, copier = 0;
    bool many_readers = false;  // in the last epoch with one
    bool copying = false;       // by the copier, which has not waited
  };
  struct Range {
    std::size_t begin, end;  // values
  };

  Range enter(const char* what, int i, std::size_t bytes, const Site& site) const;
  void claim(const char* what, Range range, const Site& site);

  std::byte* const values_;
  const std::size_t width_, count_;
  mutable std::vector<Users> users_;
  mutable std::uint64_t launch_ = 0, block_ = 0;  // the last to touch this
};

}  // namespace bidtrie::emulator

namespace bidtrie::cuda {

/// N values that a block shares; see kernels/cuda/device.cuh.
template <class T, int N>
class alignas(16) Shared : public emulator::SharedMemory {
  static_assert(std::is_trivially_copyable_v<T> && (16 % sizeof(T) == 0 || sizeof(T) % 16 == 0));

 public:
  Shared() : SharedMemory(values_, sizeof(T), N) {}

  T get(int i, emulator::Site site = emulator::Site::current()) const { return read_as<T>(i, site); }
  void set(int i, T value, emulator::Site site = emulator::Site::current()) {
    write(i, sizeof(T), &value, site);
  }
  Words2 get8(int i, emulator::Site site = emulator::Site::current()) const {
    return read_as<Words2>(i, site);
  }
  Words4 get16(int i, emulator::Site site = emulator::Site::current()) const {
    return read_as<Words4>(i, site);
  }
  void copy16(int i, const void* from, bool valid, emulator::Site site = emulator::Site::current()) {
    copy(i, from, valid, site);
  }

 private:
  template <class V>
  V read_as(int i, const emulator::Site& site) const {
    V value;
    read(i, sizeof(V), &value, site);
    return value;
  }

  alignas(16) T values_[N];
};

/// Ends a group of copies.
void copies_commit(emulator::Site site = emulator::Site::current());

}  // namespace bidtrie::cuda

namespace bidtrie::emulator {

/// Lands the thread's groups of copies but for the last `left`.
void wait_for_copies(std::size_t left, const Site& site);

}  // namespace bidtrie::emulator

namespace bidtrie::cuda {

template <int N>
inline void copies_wait(emulator::Site site = emulator::Site::current()) {
  emulator::wait_for_copies(N, site);
}

}  // namespace bidtrie::cuda
