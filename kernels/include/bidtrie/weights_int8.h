#pragma once

#include "bidtrie/weights_tile.h"

namespace bidtrie::int8 {

// Signed 8-bit codes, w = scale * code: what GGUF's Q8_0 holds (groups of 32), bit for bit. A block of 32
// columns of 16 rows takes 512 bytes, eight vectors of 4 columns:
//
//   byte  64 v   │ row 0: columns 4 v … 4 v + 3 │ row 1 │ … │ row 15 │        v = 0 … 7

inline std::size_t byte_of(std::size_t lane, std::size_t col) {
  return 64 * (col / 4) + 4 * lane + col % 4;
}

inline void put(std::uint8_t* block, std::size_t lane, std::size_t col, std::uint8_t code) {
  block[byte_of(lane, col)] = code;
}

inline int get(const std::uint8_t* block, std::size_t lane, std::size_t col) {
  return static_cast<std::int8_t>(block[byte_of(lane, col)]);
}

}  // namespace bidtrie::int8
