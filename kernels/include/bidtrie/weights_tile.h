#pragma once

#include <cstring>

#include "bidtrie/half.h"
#include "bidtrie/weights.h"

namespace bidtrie::tile {

// What all quantized formats share. Sixteen rows make a tile; tiles follow each other, and rows beyond the
// matrix are zeros. A tile holds its scales first, then its codes, each part padded to 64 bytes:
//
//   | scales of group 0 | (minima of group 0) | scales of group 1 | … | padding |
//   | block 0 | block 1 | … | padding |
//
//   scales, minima   16 x float16, row 0 … row 15
//   block            32 columns of the 16 rows: weights_int8.h, weights_int4.h, weights_sparse.h
//
// In every block the first 16 columns and the last 16 can be told apart, for groups of 16: such a block has
// two groups. Where a row ends in the middle of a block, the codes behind its end are zeros, and the group
// that a block of two lacks has scales of zero.

inline constexpr std::size_t kScaleBytes = 2 * kTileRows;

constexpr std::size_t blocks(std::size_t cols) {
  return ceil_div(cols, kBlock);
}

/// Groups of a row as a checkpoint counts them.
constexpr std::size_t groups(const WeightFormat& format, std::size_t cols) {
  return ceil_div(cols, format.group);
}

constexpr std::size_t block_bytes(const WeightFormat& format) {
  if (format.codes == Codes::kInt8) return 512;
  return format.pattern == Pattern::kDense ? 256 : format.pattern == Pattern::k2of4 ? 192 : 96;
}

/// From the scales of one group to those of the next.
constexpr std::size_t group_stride(const WeightFormat& format) {
  return format.codes == Codes::kInt4Min ? 2 * kScaleBytes : kScaleBytes;
}

constexpr std::size_t scales_bytes(const WeightFormat& format, std::size_t cols) {
  const std::size_t stored = format.group == 16 ? 2 * blocks(cols) : groups(format, cols);
  return round_up(stored * group_stride(format), 64);
}

constexpr std::size_t tile_bytes(const WeightFormat& format, std::size_t cols) {
  return scales_bytes(format, cols) + round_up(blocks(cols) * block_bytes(format), 64);
}

constexpr std::size_t packed_bytes(const WeightFormat& format, std::size_t rows, std::size_t cols) {
  return ceil_div(rows, kTileRows) * tile_bytes(format, cols);
}

/// Where the scales of a row's group lie; its minimum lies kScaleBytes behind.
inline std::size_t scale_at(const WeightFormat& format, std::size_t cols, std::size_t row,
                            std::size_t group) {
  return row / kTileRows * tile_bytes(format, cols) + group * group_stride(format) + 2 * (row % kTileRows);
}

inline std::size_t block_at(const WeightFormat& format, std::size_t cols, std::size_t row,
                            std::size_t block) {
  return row / kTileRows * tile_bytes(format, cols) + scales_bytes(format, cols) +
         block * block_bytes(format);
}

}  // namespace bidtrie::tile
