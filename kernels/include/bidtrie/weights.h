#pragma once

#include <cstddef>
#include <cstdint>

namespace bidtrie {

/// How a matrix is stored. Each format has its own header: weights_float32.h, weights_q4.h, weights_q8.h.
enum class WeightFormat : std::uint8_t { kFloat32, kQ4, kQ8 };

/// Columns that share a scale in the quantized formats; their matrices have a multiple of it.
inline constexpr std::size_t kGroup = 32;

/// Rows that a kernel computes together. Work is cut into multiples of it.
inline constexpr std::size_t kTileRows = 8;

/// Floats of a vector. Float rows, of weights and of activations, are padded to a multiple of it with zeros.
inline constexpr std::size_t kLanes = 8;

constexpr std::size_t round_up(std::size_t n, std::size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// A packed matrix [rows, cols] that lives elsewhere; `data` is aligned to 64 bytes.
struct MatrixView {
  WeightFormat format;
  std::size_t rows;
  std::size_t cols;
  const std::uint8_t* data;
};

}  // namespace bidtrie
