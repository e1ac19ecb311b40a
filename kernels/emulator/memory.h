#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "emulator/error.h"
#include "emulator/traffic.h"

namespace bidtrie::emulator {

class Allocation;

/// Bytes of the device; its addresses are no addresses of the host: whoever follows one without load… or
/// store… crashes, as the host would on a GPU's pointer. 64 GiB lie between two allocations and no address is
/// used twice, so that a wrong address, even a wrapped 32-bit offset, belongs to nobody.
class DeviceBytes {
 public:
  DeviceBytes(std::size_t bytes, std::string name);
  ~DeviceBytes();
  DeviceBytes(DeviceBytes&& other) noexcept : allocation_(std::exchange(other.allocation_, nullptr)) {}
  DeviceBytes& operator=(DeviceBytes&& other) noexcept {
    std::swap(allocation_, other.allocation_);
    return *this;
  }

  void* address() const;
  /// From or to the host. Raises Error if what is read was never written, or if the range is not inside.
  void write(std::size_t at, const void* from, std::size_t bytes);
  void read(std::size_t at, void* to, std::size_t bytes) const;

 private:
  Allocation* allocation_;
};

/// Device memory for `count` values, 256-byte aligned.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  /// Uninitialised.
  explicit Buffer(std::size_t count, std::string name = "buffer")
      : bytes_(count * sizeof(T), std::move(name)), size_(count) {}
  /// With these values.
  explicit Buffer(const std::vector<T>& values, std::string name = "buffer")
      : Buffer(values.size(), std::move(name)) {
    write(values);
  }

  Buffer(std::initializer_list<T> values) : Buffer(std::vector<T>(values)) {}

  /// For kernels.
  T* get() const { return static_cast<T*>(bytes_.address()); }
  std::size_t size() const { return size_; }
  void write(std::span<const T> values, std::size_t at = 0) {
    bytes_.write(at * sizeof(T), values.data(), values.size_bytes());
  }
  /// Values from `at` on; raises Error if one was never written.
  void read(std::size_t at, std::span<T> to) const {
    bytes_.read(at * sizeof(T), to.data(), to.size_bytes());
  }
  /// All values, likewise.
  std::vector<T> read() const {
    std::vector<T> values(size_);
    bytes_.read(0, values.data(), size_ * sizeof(T));
    return values;
  }

 private:
  DeviceBytes bytes_;
  std::size_t size_;
};

// -- What the thread that runs does, checked

void read_global(Way way, const void* address, std::size_t bytes, std::size_t alignment, void* to,
                 const Site& site);
void write_global(void* address, std::size_t bytes, std::size_t alignment, const void* from,
                  const Site& site);
std::uint32_t count_up_global(std::uint32_t* address, const Site& site);
void fence_global(const Site& site);
/// Checks 16 bytes as read_global does, without giving them.
void check_copy(const void* address, const Site& site);
/// Bytes that check_copy has checked in this launch.
void land_copy(std::uintptr_t address, void* to);

template <class T>
T load_value(Way way, const T* p, const Site& site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 16);
  constexpr bool whole = (sizeof(T) & (sizeof(T) - 1)) == 0;  // one access of this width
  T value;
  read_global(way, p, sizeof(T), whole ? sizeof(T) : alignof(T), &value, site);
  return value;
}

}  // namespace bidtrie::emulator
