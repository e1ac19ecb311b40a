#pragma once

#include <cstring>

#include "bidtrie/half.h"
#include "bidtrie/weights.h"

namespace bidtrie::q4 {

// Unsigned 4-bit codes in groups of 32 columns, w = scale * code + min: what GGUF's Q4_1 holds, bit for bit.
//
// Eight rows are interleaved into a tile, so that one 32-byte vector holds 4 columns of 8 rows, a row to each
// 32-bit lane, and a dot product needs no horizontal sum. Tiles follow each other; in a tile, groups follow
// each other; rows beyond the matrix are zeros. A group of a tile takes 160 bytes:
//
//   byte   0   scale of row 0 … 7    8 x float16
//         16   min   of row 0 … 7    8 x float16
//         32   vector 0 │ row 0: 4 bytes │ row 1: 4 bytes │ … │ row 7: 4 bytes │
//         64   vector 1
//         96   vector 2              byte b of vector v, row r:
//        128   vector 3                low nibble   column      4 v + b of the group
//                                      high nibble  column 16 + 4 v + b

inline constexpr std::size_t kGroupBytes = 160;
inline constexpr std::size_t kCodesAt = 32;
inline constexpr std::size_t kMinAt = 16;

/// Bytes of a group of one row in a GGUF Q4_1 tensor: scale, min, 16 bytes of codes; byte i holds columns i,
/// 16 + i.
inline constexpr std::size_t kGgufGroupBytes = 20;

constexpr std::size_t tile_bytes(std::size_t cols) {
  return cols / kGroup * kGroupBytes;
}

constexpr std::size_t packed_bytes(std::size_t rows, std::size_t cols) {
  return round_up(rows, kTileRows) / kTileRows * tile_bytes(cols);
}

/// Pack GGUF Q4_1 rows. `packed` holds packed_bytes(rows, cols) zeros.
inline void pack(const std::uint8_t* gguf, std::size_t rows, std::size_t cols, std::uint8_t* packed) {
  const std::size_t groups = cols / kGroup;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t lane = r % kTileRows;
    for (std::size_t g = 0; g < groups; ++g) {
      const std::uint8_t* from = gguf + (r * groups + g) * kGgufGroupBytes;
      std::uint8_t* to = packed + r / kTileRows * tile_bytes(cols) + g * kGroupBytes;
      std::memcpy(to + 2 * lane, from, 2);
      std::memcpy(to + kMinAt + 2 * lane, from + 2, 2);
      for (std::size_t v = 0; v < 4; ++v) std::memcpy(to + kCodesAt + 32 * v + 4 * lane, from + 4 + 4 * v, 4);
    }
  }
}

/// One row as floats: product and sum are rounded separately, as gguf-py does.
inline void unpack_row(const std::uint8_t* packed, std::size_t cols, std::size_t r, float* out) {
  const std::size_t lane = r % kTileRows;
  for (std::size_t g = 0; g < cols / kGroup; ++g) {
    const std::uint8_t* group = packed + r / kTileRows * tile_bytes(cols) + g * kGroupBytes;
    std::uint16_t half[2];
    std::memcpy(&half[0], group + 2 * lane, 2);
    std::memcpy(&half[1], group + kMinAt + 2 * lane, 2);
    const float scale = half_to_float(half[0]), min = half_to_float(half[1]);
    for (std::size_t v = 0; v < 4; ++v) {
      for (std::size_t b = 0; b < 4; ++b) {
        const std::uint8_t codes = group[kCodesAt + 32 * v + 4 * lane + b];
        float low = scale * static_cast<float>(codes & 15);
        float high = scale * static_cast<float>(codes >> 4);
        out[g * kGroup + 4 * v + b] = low + min;
        out[g * kGroup + 16 + 4 * v + b] = high + min;
      }
    }
  }
}

}  // namespace bidtrie::q4
