#pragma once

#include "bidtrie/weights_tile.h"

namespace bidtrie::sparse {

// N of every four columns are kept as 4-bit codes, w = scale * (code - 8) or scale * table[code], each with
// its position in the four in 2 bits. Kept weight k of a row's block stands for a column of four k / N; four
// kept weights of a row make a 32-bit lane, as four columns do in the dense formats.
//
// 2:4, 192 bytes a block, 16 kept a row:
//
//   byte   0   │ row 0: 4 bytes │ … │ row 15 │    byte b: low nibble kept b, high nibble kept 8 + b
//         64   the same for kept 4 + b and 12 + b
//        128   │ row 0: 4 bytes │ … │ row 15 │    byte b, bits 2 u and 2 u + 1: position of kept 4 u + b
//
// 1:4, 96 bytes a block, 8 kept a row:
//
//   byte   0   │ row 0: 4 bytes │ … │ row 15 │    byte b: low nibble kept b, high nibble kept 4 + b
//         64   │ rows 0 and 8: 4 bytes │ … │ rows 7 and 15 │
//                                                 byte b, low nibble rows 0 … 7, high nibble rows 8 … 15:
//                                                 bits 2 u and 2 u + 1 position of kept 4 u + b
//
// Kept weights of the first 16 columns are in low nibbles, those of the last 16 in high ones.

/// Kept weights of a row's block.
constexpr std::size_t kept(Pattern pattern) {
  return kept_of_four(pattern) * kBlock / 4;
}

struct Place {
  std::size_t byte;
  int shift;
};

inline Place code_at(Pattern pattern, std::size_t lane, std::size_t k) {
  const std::size_t half = kept(pattern) / 2, low = k % half;
  return {64 * (low / 4) + 4 * lane + low % 4, k < half ? 0 : 4};
}

inline Place position_at(Pattern pattern, std::size_t lane, std::size_t k) {
  const int field = 2 * static_cast<int>(k / 4);
  if (pattern == Pattern::k2of4) return {128 + 4 * lane + k % 4, field};
  return {64 + 4 * (lane % 8) + k % 4, field + (lane < 8 ? 0 : 4)};
}

inline void put(Pattern pattern, std::uint8_t* block, std::size_t lane, std::size_t k, std::uint8_t code,
                std::uint8_t position) {
  const Place at = code_at(pattern, lane, k), where = position_at(pattern, lane, k);
  block[at.byte] |= static_cast<std::uint8_t>(code << at.shift);
  block[where.byte] |= static_cast<std::uint8_t>(position << where.shift);
}

inline int code(Pattern pattern, const std::uint8_t* block, std::size_t lane, std::size_t k) {
  const Place at = code_at(pattern, lane, k);
  return block[at.byte] >> at.shift & 15;
}

/// The column of the block that kept weight k stands for.
inline std::size_t column(Pattern pattern, const std::uint8_t* block, std::size_t lane, std::size_t k) {
  const Place where = position_at(pattern, lane, k);
  return k / kept_of_four(pattern) * 4 + static_cast<std::size_t>(block[where.byte] >> where.shift & 3);
}

}  // namespace bidtrie::sparse
