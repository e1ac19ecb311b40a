#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bidtrie/weights.h"
#include "buffer.h"

namespace bidtrie {

/// A tensor as a checkpoint holds it: row-major float32, or raw GGUF blocks of Q4_1 or Q8_0. Not owned.
struct TensorSource {
  WeightFormat format;
  std::vector<std::size_t> shape;  // in weights
  const std::uint8_t* data;
  std::size_t bytes;
};

/// A packed weight matrix [rows, cols].
class Matrix {
 public:
  /// Packs the source, as float32 if `dequantize`. `name` is for ModelError.
  Matrix(const std::string& name, const TensorSource& source, bool dequantize);

  MatrixView view() const { return {format_, rows_, cols_, data_.data()}; }
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  WeightFormat format() const { return format_; }

  /// out[cols] = row r as floats, exactly what the checkpoint's format means.
  void unpack_row(std::size_t r, float* out) const;

 private:
  WeightFormat format_;
  std::size_t rows_;
  std::size_t cols_;
  Buffer<std::uint8_t> data_;
};

/// Throws ModelError unless the source has this shape and the bytes that its format takes for it.
void check_tensor(const std::string& name, const TensorSource& source, const std::vector<std::size_t>& shape);

}  // namespace bidtrie
