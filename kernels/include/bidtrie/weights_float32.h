#pragma once

#include <cstring>

#include "bidtrie/weights.h"

namespace bidtrie::float32 {

// Row-major; each row is padded with zeros to a multiple of 16 floats:
//
//   row r   | w[r][0] w[r][1] … w[r][cols-1] 0 … 0 |   stride(cols) floats

constexpr std::size_t stride(std::size_t cols) {
  return round_up(cols, kLanes);
}

constexpr std::size_t packed_bytes(std::size_t rows, std::size_t cols) {
  return rows * stride(cols) * sizeof(float);
}

inline const float* row(const std::uint8_t* packed, std::size_t cols, std::size_t r) {
  return reinterpret_cast<const float*>(packed) + r * stride(cols);
}

/// Pack the bytes of row-major floats. `packed` holds packed_bytes(rows, cols) zeros.
inline void pack(const std::uint8_t* source, std::size_t rows, std::size_t cols, std::uint8_t* packed) {
  for (std::size_t r = 0; r < rows; ++r) {
    std::memcpy(packed + r * stride(cols) * sizeof(float), source + r * cols * sizeof(float),
                cols * sizeof(float));
  }
}

inline void unpack_row(const std::uint8_t* packed, std::size_t cols, std::size_t r, float* out) {
  std::memcpy(out, row(packed, cols, r), cols * sizeof(float));
}

}  // namespace bidtrie::float32
