#pragma once

#include "kernels_float.h"
#include "kernels_quantized.h"

namespace bidtrie {
namespace {

inline void linear(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                   std::size_t nodes, float* out, std::size_t out_stride, const float* bias,
                   bool accumulate) {
  switch (w.format) {
    case WeightFormat::kFloat32:
      return linear_float32(w, row_begin, row_end, x, nodes, out, out_stride, bias, accumulate);
    case WeightFormat::kQ4:
      return linear_q4(w, row_begin, row_end, x, nodes, out, out_stride, bias, accumulate);
    case WeightFormat::kQ8:
      return linear_q8(w, row_begin, row_end, x, nodes, out, out_stride, bias, accumulate);
  }
}

inline void rows(const MatrixView& w, const std::int32_t* ids, std::size_t count, const Activations& x,
                 float* out, const float* bias) {
  switch (w.format) {
    case WeightFormat::kFloat32:
      return rows_float32(w, ids, count, x, out, bias);
    case WeightFormat::kQ4:
      return rows_q4(w, ids, count, x, out, bias);
    case WeightFormat::kQ8:
      return rows_q8(w, ids, count, x, out, bias);
  }
}

constexpr Kernels table(const char* name) {
  return {name, linear, rows, quantize, rms_norm, swiglu, attention, sum_exp};
}

}  // namespace
}  // namespace bidtrie
