#pragma once

#include <cstring>
#include <span>

#include "bidtrie/weights.h"

namespace bidtrie::gpu {

// How the GPU's kernels want a matrix of codes: in the order in which tensor cores take it, so that a warp
// reads whole lines and no value has to move between lanes.
//
// Sixteen rows make a row tile; a row tile is its scales, group after group, and then its tiles of 64
// columns:
//
//   | scales of group 0 | of group 1 | … | tile 0 | tile 1 | … |
//
//   scales of a group   for g = 0 … 7: float16 of row g and of row g + 8; with minima 8 bytes: scale of row g
//                       and of g + 8, minimum of row g and of g + 8
//
// Lane l = 4 g + q of a warp holds of a tile:
//
//   dense, 512 bytes    16 at 16 l: word j (j = 0 … 3) has four columns from c on of rows g and g + 8, where
//                       c = 32 (j / 2) + 8 q + 4 (j % 2), so that a lane's activations are 16 bytes on end;
//                       with groups of 16, which a product of 16 columns must not mix, c = 16 j + 4 q
//
//                         nibble   0         1             2             3                 4 … 7
//                                  row g, c  row g + 8, c  row g, c + 2  row g + 8, c + 2  the column behind
//
//   8 bits, 1,024 bytes The same columns, a byte each: its code + 128, which is never negative. Columns 32 s
//                       … 32 s + 31 (s = 0, 1) are 512 bytes on end, so that a warp reads each at once: 16 at
//                       512 s + 16 l: words 2 i and 2 i + 1 (i = 0, 1) have what is word j = 2 s + i of 4
//                       bits:
//
//                         byte     0         1             2             3
//                                  row g, c  row g + 8, c  the column behind; word 2 i + 1: from c + 2 on
//
//   2:4, 384 bytes      A half of 32 columns has eight fours; the tensor core's four number u is the half's
//                       four u / 2 + 4 (u % 2), so that a lane's activations are 32 bytes on end.
//                       8 at 8 l: word s (s = 0, 1) has what is kept of the fours u = q and u = 4 + q of half
//                       s:
//
//                         nibble   0         1             2             3                 4 … 7
//                                  row g, q  row g + 8, q  row g, 4 + q  row g + 8, 4 + q  the second kept
//
//                       positions behind the codes: 8 bytes for each g and i = 0, 1 at 16 g + 8 i: word s has
//                       the fours u = 4 i + f (f = 0 … 3) of half s and row g in nibble f, of row g + 8 in
//                       nibble 4 + f, the first kept one's position in the low 2 bits
//
//   1:4, 192 bytes      4 at 4 l:
//
//                         nibble   0         1             2             3                 4 … 7
//                                  row g, q  row g + 8, q  row g, 4 + q  row g + 8, 4 + q  of half 1
//
//                       positions behind the codes: 4 bytes for each g and i at 8 g + 4 i: bits 16 s + 8 h +
//                       2 f and the next: of half s, u = 4 i + f, row g + 8 h
//
// Rows and columns beyond the matrix hold zeros; columns there meet no activations.

inline constexpr std::size_t kRowTile = 16;
inline constexpr std::size_t kColumnTile = 64;

constexpr bool is_packable(const WeightFormat& format) {
  return is_supported(format) && format.is_quantized();
}

constexpr std::size_t row_tiles(std::size_t rows) {
  return ceil_div(rows, kRowTile);
}

constexpr std::size_t column_tiles(std::size_t cols) {
  return ceil_div(cols, kColumnTile);
}

constexpr std::size_t groups(const WeightFormat& format, std::size_t cols) {
  return ceil_div(cols, format.group);
}

/// Bytes of a row tile's scales (and minima) of one group.
constexpr std::size_t group_bytes(Codes codes) {
  return codes == Codes::kInt4Min ? 64 : 32;
}

/// Groups that are stored: whole tiles have scales, those of columns beyond the matrix are zeros.
constexpr std::size_t stored_groups(const WeightFormat& format, std::size_t cols) {
  return ceil_div(column_tiles(cols) * kColumnTile, format.group);
}

constexpr std::size_t scales_bytes(const WeightFormat& format, std::size_t cols) {
  return stored_groups(format, cols) * group_bytes(format.codes);
}

/// Weights that are kept of a tile.
constexpr std::size_t tile_weights(Pattern pattern) {
  return kRowTile * kColumnTile / 4 * kept_of_four(pattern);
}

/// Bytes of a tile's codes; positions, two bits each, are behind them.
constexpr std::size_t code_bytes(Codes codes, Pattern pattern) {
  return tile_weights(pattern) * (codes == Codes::kInt8 ? 8 : 4) / 8;
}

constexpr std::size_t tile_bytes(Codes codes, Pattern pattern) {
  return code_bytes(codes, pattern) + (pattern == Pattern::kDense ? 0 : tile_weights(pattern) * 2 / 8);
}

constexpr std::size_t row_tile_bytes(const WeightFormat& format, std::size_t cols) {
  return scales_bytes(format, cols) + column_tiles(cols) * tile_bytes(format.codes, format.pattern);
}

constexpr std::size_t packed_bytes(const WeightFormat& format, std::size_t rows, std::size_t cols) {
  return row_tiles(rows) * row_tile_bytes(format, cols);
}

/// A matrix as an artefact stores it: row-major, a signed code or two of 4 bits a byte (the even one in the
/// low nibble), four positions a byte (the first in the lowest bits), scales and minima float16 [rows,
/// groups].
struct Source {
  WeightFormat format;
  std::size_t rows, cols;
  const std::uint8_t* codes;
  const std::uint16_t* scales;
  const std::uint16_t* minima;    // of kInt4Min, else null
  const std::uint8_t* positions;  // of sparse patterns, else null
};

enum class PackError : std::uint8_t { kNone, kFormat, kColumns, kPositions };

/// Packs into `out`, packed_bytes(…) long. Wants columns in multiples of 16, and positions that ascend in
/// each four.
inline PackError pack(const Source& source, std::uint8_t* out) {
  const WeightFormat& format = source.format;
  if (!is_packable(format)) return PackError::kFormat;
  if (source.cols == 0 || source.cols % 16 != 0) return PackError::kColumns;
  const std::size_t cols = source.cols, group_count = groups(format, cols),
                    kept = kept_of_four(format.pattern);
  const std::size_t codes_per_row = cols / 4 * kept;
  std::memset(out, 0, packed_bytes(format, source.rows, cols));

  const auto code = [&](std::size_t row, std::size_t index) -> std::uint32_t {
    const std::size_t at = row * codes_per_row + index;
    return source.codes[at / 2] >> (at % 2 * 4) & 15u;
  };
  const auto position = [&](std::size_t row, std::size_t index) -> std::uint32_t {
    const std::size_t at = row * codes_per_row + index;
    return source.positions[at / 4] >> (at % 4 * 2) & 3u;
  };
  const auto put = [](std::uint8_t* word, std::size_t shift, std::uint32_t bits) {
    word[shift / 8] = static_cast<std::uint8_t>(word[shift / 8] | bits << shift % 8);
  };

  for (std::size_t row = 0; row < source.rows; ++row) {
    std::uint8_t* tile_row = out + row / kRowTile * row_tile_bytes(format, cols);
    const std::size_t g = row % 8, h = row % kRowTile / 8;
    for (std::size_t group = 0; group < group_count; ++group) {
      const std::size_t at = row * group_count + group;
      std::uint8_t* scales = tile_row + group * group_bytes(format.codes);
      if (format.codes == Codes::kInt4Min) {
        std::memcpy(scales + 8 * g + 2 * h, &source.scales[at], 2);
        std::memcpy(scales + 8 * g + 4 + 2 * h, &source.minima[at], 2);
      } else {
        std::memcpy(scales + 4 * g + 2 * h, &source.scales[at], 2);
      }
    }
    std::uint8_t* tiles = tile_row + scales_bytes(format, cols);
    if (format.pattern == Pattern::kDense) {
      for (std::size_t col = 0; col < cols; ++col) {
        const std::size_t in = col % kColumnTile, b = in % 4;
        const std::size_t q = format.group == 16 ? in % 16 / 4 : in % 32 / 8;
        const std::size_t j = format.group == 16 ? in / 16 : in / 32 * 2 + in % 8 / 4;
        std::uint8_t* lane =
            tiles + col / kColumnTile * tile_bytes(format.codes, format.pattern) + 16 * (4 * g + q);
        if (format.codes == Codes::kInt8) {
          lane[512 * (j / 2) + 8 * (j % 2) + 4 * (b / 2) + h + 2 * (b % 2)] =
              static_cast<std::uint8_t>(source.codes[row * cols + col] ^ 0x80);
        } else {
          put(lane + 4 * j, 4 * (h + b / 2 * 2 + b % 2 * 4), code(row, col));
        }
      }
      continue;
    }
    for (std::size_t four = 0; four < cols / 4; ++four) {
      const std::size_t in = four % 16, s = in / 8, place = 2 * (in % 4) + in % 8 / 4, i = place / 4,
                        f = place % 4;
      std::uint8_t* tile = tiles + four / 16 * tile_bytes(format.codes, format.pattern);
      std::uint8_t* positions = tile + code_bytes(format.codes, format.pattern);
      if (format.pattern == Pattern::k2of4) {
        const std::uint32_t first = position(row, 2 * four), second = position(row, 2 * four + 1);
        if (first >= second) return PackError::kPositions;
        std::uint8_t* word = tile + 8 * (4 * g + f) + 4 * s;
        put(word, 4 * (h + 2 * i), code(row, 2 * four));
        put(word, 4 * (h + 2 * i + 4), code(row, 2 * four + 1));
        put(positions + 16 * g + 8 * i + 4 * s, 16 * h + 4 * f, first | second << 2);
      } else {
        put(tile + 4 * (4 * g + f), 4 * (h + 2 * i + 4 * s), code(row, four));
        put(positions + 8 * g + 4 * i, 16 * s + 8 * h + 2 * f, position(row, four));
      }
    }
  }
  if (format.pattern == Pattern::k2of4) {
    // What a tensor core reads must ascend, rows and fours beyond the matrix included.
    for (std::size_t tile_row = 0; tile_row < row_tiles(source.rows); ++tile_row) {
      for (std::size_t tile = 0; tile < column_tiles(cols); ++tile) {
        std::uint8_t* positions =
            out + tile_row * row_tile_bytes(format, cols) + scales_bytes(format, cols) + tile * 384 + 256;
        for (std::size_t byte = 0; byte < 128; ++byte) {
          if ((positions[byte] & 15) == 0) positions[byte] |= 4;
          if (positions[byte] >> 4 == 0) positions[byte] |= 4 << 4;
        }
      }
    }
  }
  return PackError::kNone;
}

}  // namespace bidtrie::gpu
