#pragma once

#include <cstdint>

namespace bidtrie::cuda {

/// 16 bits of a number, as they lie in memory.
struct Float16 {
  std::uint16_t bits;
};
struct Bfloat16 {
  std::uint16_t bits;
};

/// Four 32-bit words, the widest access.
struct alignas(16) Words4 {
  std::uint32_t w[4];
};
struct alignas(8) Words2 {
  std::uint32_t w[2];
};

}  // namespace bidtrie::cuda
