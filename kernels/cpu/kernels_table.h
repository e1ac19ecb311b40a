#pragma once

#include "kernels_float.h"
#include "kernels_quantized.h"

namespace bidtrie {
namespace {

constexpr Kernels table(const char* name) {
  return {name, linear, rows, quantize, rms_norm, swiglu, to_half, attend, sum_exp, multiply_adds, read_all};
}

}  // namespace
}  // namespace bidtrie
