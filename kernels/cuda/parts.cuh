#pragma once

#include "device.cuh"

namespace bidtrie::cuda {

/// Where the parts of one result meet: each of `splits` blocks has stored its partial sums and calls with the
/// counter that they share; true for the last one, which then sees all of them (load_fresh). The counter is 0
/// again afterwards.
__device__ __forceinline__ bool is_last_part(std::uint32_t* counter, unsigned splits,
                                             Shared<std::uint32_t, 1>& flag) {
  fence();
  sync_block();
  if (threadIdx.x == 0) {
    const std::uint32_t before = count_up(counter);
    flag.set(0, before);
    if (before == splits - 1) store(counter, 0u);  // for the next launch
  }
  sync_block();
  const bool is_last = flag.get(0) == splits - 1;
  if (is_last) fence();
  return is_last;
}

/// The sum of `parts` values that lie `stride` apart, in order; loads of eight are under way at once.
__device__ __forceinline__ float sum_parts(const float* values, unsigned stride, unsigned parts) {
  constexpr unsigned kTogether = 8;
  float sum = 0;
  for (unsigned first = 0; first < parts; first += kTogether) {
    float loaded[kTogether];
#pragma unroll
    for (unsigned i = 0; i < kTogether; ++i) {
      loaded[i] = first + i < parts ? load_fresh(values + (first + i) * stride) : 0.0f;
    }
#pragma unroll
    for (unsigned i = 0; i < kTogether; ++i) sum += loaded[i];
  }
  return sum;
}

}  // namespace bidtrie::cuda
