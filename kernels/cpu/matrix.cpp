#include "matrix.h"

#include <limits>

#include "bidtrie/error.h"
#include "bidtrie/weights_float32.h"
#include "bidtrie/weights_q4.h"
#include "bidtrie/weights_q8.h"

namespace bidtrie {
namespace {

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text;
  for (const std::size_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

std::size_t source_bytes(const std::string& name, WeightFormat format,
                         const std::vector<std::size_t>& shape) {
  std::size_t weights = 1;
  for (const std::size_t n : shape) {
    // Far above any model, far below what overflows in sizes derived from it.
    if (n == 0 || n > std::numeric_limits<std::uint32_t>::max() || weights > (std::size_t{1} << 48) / n) {
      throw ModelError(message(name, ": impossible shape ", shape_text(shape)));
    }
    weights *= n;
  }
  if (format == WeightFormat::kFloat32) return weights * sizeof(float);
  if (shape.size() != 2 || shape.back() % kGroup != 0) {
    throw ModelError(message(name, ": shape ", shape_text(shape),
                             ", expected two dimensions and a multiple of ", kGroup,
                             " columns for quantized weights"));
  }
  return weights / kGroup * (format == WeightFormat::kQ4 ? q4::kGgufGroupBytes : q8::kGgufGroupBytes);
}

}  // namespace

void check_tensor(const std::string& name, const TensorSource& source,
                  const std::vector<std::size_t>& shape) {
  if (source.shape != shape) {
    throw ModelError(message(name, ": shape ", shape_text(source.shape), ", expected ", shape_text(shape)));
  }
  const std::size_t expected = source_bytes(name, source.format, source.shape);
  if (source.bytes != expected) {
    throw ModelError(message(name, ": ", source.bytes, " bytes, expected ", expected));
  }
}

Matrix::Matrix(const std::string& name, const TensorSource& source, bool dequantize)
    : format_(dequantize ? WeightFormat::kFloat32 : source.format) {
  if (source.shape.size() != 2) {
    throw ModelError(message(name, ": shape ", shape_text(source.shape), ", expected two dimensions"));
  }
  check_tensor(name, source, source.shape);
  rows_ = source.shape[0];
  cols_ = source.shape[1];
  switch (format_) {
    case WeightFormat::kFloat32:
      data_ = Buffer<std::uint8_t>(float32::packed_bytes(rows_, cols_));
      break;
    case WeightFormat::kQ4:
      data_ = Buffer<std::uint8_t>(q4::packed_bytes(rows_, cols_));
      break;
    case WeightFormat::kQ8:
      data_ = Buffer<std::uint8_t>(q8::packed_bytes(rows_, cols_));
      break;
  }
  if (source.format == WeightFormat::kFloat32) {
    float32::pack(source.data, rows_, cols_, data_.data());
  } else if (dequantize) {
    const Matrix packed(name, source, false);
    for (std::size_t r = 0; r < rows_; ++r) {
      packed.unpack_row(r, reinterpret_cast<float*>(data_.data()) + r * float32::stride(cols_));
    }
  } else if (source.format == WeightFormat::kQ4) {
    q4::pack(source.data, rows_, cols_, data_.data());
  } else {
    q8::pack(source.data, rows_, cols_, data_.data());
  }
}

void Matrix::unpack_row(std::size_t r, float* out) const {
  switch (format_) {
    case WeightFormat::kFloat32:
      return float32::unpack_row(data_.data(), cols_, r, out);
    case WeightFormat::kQ4:
      return q4::unpack_row(data_.data(), cols_, r, out);
    case WeightFormat::kQ8:
      return q8::unpack_row(data_.data(), cols_, r, out);
  }
}

}  // namespace bidtrie
