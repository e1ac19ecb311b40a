#pragma once

#include <cstdint>

#include "emulator/error.h"

namespace bidtrie::emulator {

/// 16 bits to the number that they mean.
using Decode = float (*)(std::uint16_t);
float decode_float16(std::uint16_t bits);
float decode_bfloat16(std::uint16_t bits);

// The multiplications of kernels/cuda/device.cuh: every product exact, summed in float64 with C, rounded to
// float32 once, in the end. Hardware sums in an order and with an alignment of its own, so a kernel's float32
// result differs from this in the last places.

void multiply_dense(Decode decode, float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                    std::uint32_t b1, const Site& site);
void multiply_sparse(Decode decode, float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[4],
                     std::uint32_t positions, const Site& site);

}  // namespace bidtrie::emulator
