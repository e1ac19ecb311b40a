#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace bidtrie {

/// What the codes of a matrix mean.
enum class Codes : std::uint8_t {
  kFloat32,    // no codes: the values themselves (weights_float32.h)
  kInt8,       // w = scale * code, signed (weights_int8.h)
  kInt4,       // w = scale * (code - 8)                     (weights_int4.h, as the next two)
  kInt4Min,    // w = scale * code + min
  kInt4Table,  // w = scale * table[code], entries -32 … 32
};

/// Which of every four columns of a row are kept (weights_sparse.h); the others are zero.
enum class Pattern : std::uint8_t { kDense, k2of4, k1of4 };

/// How a matrix is stored. Groups of `group` columns share a scale (and a minimum); the last one of a row may
/// be short.
struct WeightFormat {
  Codes codes = Codes::kFloat32;
  Pattern pattern = Pattern::kDense;
  std::size_t group = 0;  // 16, or a multiple of 32 up to 256; 0 for float32

  bool is_quantized() const { return codes != Codes::kFloat32; }
  bool operator==(const WeightFormat&) const = default;
};

/// Weights kept of every four.
constexpr std::size_t kept_of_four(Pattern pattern) {
  return pattern == Pattern::kDense ? 4 : pattern == Pattern::k2of4 ? 2 : 1;
}

/// Sparse rows are always 4-bit, and a minimum needs every weight.
constexpr bool is_supported(const WeightFormat& format) {
  if (format.codes == Codes::kFloat32) return format.pattern == Pattern::kDense && format.group == 0;
  if (format.pattern != Pattern::kDense && format.codes != Codes::kInt4 && format.codes != Codes::kInt4Table)
    return false;
  return format.group == 16 || (format.group % 32 == 0 && format.group >= 32 && format.group <= 256);
}

using CodeTable = std::array<std::int8_t, 16>;
/// Table entries lie in [-32, 32], so that shifted by 32 they are unsigned and two products fit 16 bits.
inline constexpr int kTableShift = 32;

/// Columns that a kernel takes at once, and that share an activation scale. Packed rows are filled up to it
/// with codes that meet zero activations.
inline constexpr std::size_t kBlock = 32;

/// Rows that are interleaved, so that a row is a lane and a dot product needs no horizontal sum. Work is cut
/// into multiples of it.
inline constexpr std::size_t kTileRows = 16;

/// Floats of a vector. Float rows are padded to a multiple of it with zeros.
inline constexpr std::size_t kLanes = 16;

/// Nodes whose activations lie side by side (see kernels.h).
inline constexpr std::size_t kPanel = 8;

constexpr std::size_t ceil_div(std::size_t n, std::size_t d) {
  return (n + d - 1) / d;
}

constexpr std::size_t round_up(std::size_t n, std::size_t multiple) {
  return ceil_div(n, multiple) * multiple;
}

/// A packed matrix [rows, cols] that lives elsewhere; `data` is aligned to 64 bytes.
struct MatrixView {
  WeightFormat format;
  std::size_t rows;
  std::size_t cols;
  const std::uint8_t* data;
  CodeTable table;  // of kInt4Table
};

}  // namespace bidtrie
