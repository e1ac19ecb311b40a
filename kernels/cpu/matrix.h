#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "arena.h"
#include "bidtrie/weights.h"

namespace bidtrie {

/// How a checkpoint stores a tensor.
enum class Storage : std::uint8_t {
  kFloat32,   // row-major floats
  kGgufQ4_1,  // blocks of 32: scale, min (float16), 16 bytes of codes, byte i holding columns i and 16 + i
  kGgufQ8_0,  // blocks of 32: scale (float16), 32 signed codes
  kGroups,    // an artefact: codes, scales, … each in an array of its own
};

/// A tensor as a checkpoint holds it. Not owned.
struct TensorSource {
  Storage storage;
  std::vector<std::size_t> shape;      // in weights
  std::span<const std::uint8_t> data;  // floats, GGUF blocks, or codes [rows, kept * bits / 8]

  // Of kGroups alone. Two 4-bit codes share a byte, the even one in the low nibble; four positions do, the
  // first in the lowest bits.
  WeightFormat format;
  std::span<const std::uint8_t> scales;     // float16 [rows, groups]
  std::span<const std::uint8_t> minimums;   // float16 [rows, groups] or empty
  std::span<const std::uint8_t> positions;  // [rows, kept / 4] or empty
  CodeTable table;
};

/// Throws ModelError unless the source has this shape and the bytes that its format takes for it.
void check_tensor(const std::string& name, const TensorSource& source, const std::vector<std::size_t>& shape);

/// A packed weight matrix [rows, cols] in an arena.
class Matrix {
 public:
  /// Packs the source, as float32 if `dequantize`. `name` is for ModelError.
  Matrix(const std::string& name, const TensorSource& source, bool dequantize, Arena& arena);

  const MatrixView& view() const { return view_; }
  std::size_t rows() const { return view_.rows; }
  std::size_t cols() const { return view_.cols; }
  bool is_quantized() const { return view_.format.is_quantized(); }
  std::size_t bytes() const;

  /// out[cols] = row r as floats, exactly what the checkpoint's format means.
  void unpack_row(std::size_t r, float* out) const;

 private:
  MatrixView view_;
};

}  // namespace bidtrie
