#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bidtrie/weights.h"
#include "buffer.h"

namespace bidtrie {

/// Zeroed memory, handed out in order of asking from large pieces on huge pages: matrices that are read one
/// after the other lie one after the other, and few of a pass' reads wait for a page walk.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// `bytes` aligned to a cache line; they live as long as the arena.
  std::uint8_t* allocate(std::size_t bytes) {
    bytes = round_up(bytes, kAlign);
    if (bytes > left_) {
      left_ = std::max(bytes, std::min(kLeast << std::min<std::size_t>(pieces_.size(), 5), kMost));
      pieces_.emplace_back(left_);
      at_ = pieces_.back().data();
    }
    std::uint8_t* begin = at_;
    at_ += bytes;
    left_ -= bytes;
    return begin;
  }

 private:
  static constexpr std::size_t kAlign = 64, kLeast = std::size_t{2} << 20, kMost = std::size_t{64} << 20;

  std::vector<Buffer<std::uint8_t>> pieces_;
  std::uint8_t* at_ = nullptr;
  std::size_t left_ = 0;
};

}  // namespace bidtrie
