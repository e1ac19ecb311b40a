#pragma once

#include <cstring>

#include "bidtrie/half.h"
#include "bidtrie/weights.h"

namespace bidtrie::q8 {

// Signed 8-bit codes in groups of 32 columns, w = scale * code: what GGUF's Q8_0 holds, bit for bit.
//
// Rows stay whole, so that one vocabulary row of an embedding or a head is read without its neighbours; codes
// come first, so that vectors are aligned; a row is padded to a multiple of 32 bytes:
//
//   row r   | codes of group 0 (32 x int8) | codes of group 1 | … | scales (float16 a group) | padding |

/// Bytes of a group of one row in a GGUF Q8_0 tensor: scale, 32 codes.
inline constexpr std::size_t kGgufGroupBytes = 34;

constexpr std::size_t row_bytes(std::size_t cols) {
  return round_up(cols + cols / kGroup * 2, 32);
}

constexpr std::size_t packed_bytes(std::size_t rows, std::size_t cols) {
  return rows * row_bytes(cols);
}

/// Pack GGUF Q8_0 rows. `packed` holds packed_bytes(rows, cols) zeros.
inline void pack(const std::uint8_t* gguf, std::size_t rows, std::size_t cols, std::uint8_t* packed) {
  const std::size_t groups = cols / kGroup;
  for (std::size_t r = 0; r < rows; ++r) {
    std::uint8_t* to = packed + r * row_bytes(cols);
    for (std::size_t g = 0; g < groups; ++g) {
      const std::uint8_t* from = gguf + (r * groups + g) * kGgufGroupBytes;
      std::memcpy(to + cols + 2 * g, from, 2);
      std::memcpy(to + g * kGroup, from + 2, kGroup);
    }
  }
}

/// One row as floats, rounded as gguf-py does.
inline void unpack_row(const std::uint8_t* packed, std::size_t cols, std::size_t r, float* out) {
  const std::uint8_t* row = packed + r * row_bytes(cols);
  for (std::size_t g = 0; g < cols / kGroup; ++g) {
    std::uint16_t half;
    std::memcpy(&half, row + cols + 2 * g, 2);
    const float scale = half_to_float(half);
    for (std::size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      out[i] = static_cast<float>(static_cast<std::int8_t>(row[i])) * scale;
    }
  }
}

}  // namespace bidtrie::q8
