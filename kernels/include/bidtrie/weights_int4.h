#pragma once

#include "bidtrie/weights_tile.h"

namespace bidtrie::int4 {

// Unsigned 4-bit codes: w = scale * (code - 8), or scale * code + min (what GGUF's Q4_1 holds in groups of
// 32, bit for bit), or scale * table[code]. A block of 32 columns of 16 rows takes 256 bytes, four vectors:
//
//   byte  64 v   │ row 0: 4 bytes │ row 1 │ … │ row 15 │        v = 0 … 3
//
//   byte b of vector v:   low nibble    column      4 v + b
//                         high nibble   column 16 + 4 v + b

inline std::size_t byte_of(std::size_t lane, std::size_t col) {
  return 64 * (col % 16 / 4) + 4 * lane + col % 4;
}

inline void put(std::uint8_t* block, std::size_t lane, std::size_t col, std::uint8_t code) {
  block[byte_of(lane, col)] |= static_cast<std::uint8_t>(col < 16 ? code : code << 4);
}

inline int get(const std::uint8_t* block, std::size_t lane, std::size_t col) {
  const std::uint8_t codes = block[byte_of(lane, col)];
  return col < 16 ? codes & 15 : codes >> 4;
}

}  // namespace bidtrie::int4
