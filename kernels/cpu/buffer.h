#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "bidtrie/weights.h"

namespace bidtrie {

/// Zeroed, aligned memory of a fixed size. Large buffers ask for huge pages: weights are streamed once a
/// step, and without them a page walk comes with every 4 KiB.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = size * sizeof(T);
    align_ = bytes >= kHugePage ? kHugePage : kCacheLine;
    data_ = static_cast<T*>(::operator new(bytes, std::align_val_t{align_}));
#ifdef MADV_HUGEPAGE
    if (align_ == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, bytes);
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(align_, other.align_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t{align_});
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  static constexpr std::size_t kCacheLine = 64;
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t align_ = kCacheLine;
};

/// Zeroed memory that takes up room only where it has been written: a KV cache may be larger than what is
/// ever used.
class LazyBuffer {
 public:
  LazyBuffer() = default;
  explicit LazyBuffer(std::size_t bytes) : bytes_(bytes) {
    if (bytes_ == 0) return;
    void* address =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<std::uint8_t*>(address);
  }
  LazyBuffer(LazyBuffer&& other) noexcept { *this = std::move(other); }
  LazyBuffer& operator=(LazyBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~LazyBuffer() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  std::uint8_t* data() { return data_; }
  const std::uint8_t* data() const { return data_; }

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace bidtrie
