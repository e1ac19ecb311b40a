#include "linear_launch.cuh"

namespace bidtrie::cuda {

cudaError_t linear_bfloat16(const Linear& a, cudaStream_t stream) {
  return launch_for_format<Bfloat16>(a, stream);
}

cudaError_t linear(const Linear& a, cudaStream_t stream) {
  return a.type == Float::kFloat16 ? linear_float16(a, stream) : linear_bfloat16(a, stream);
}

}  // namespace bidtrie::cuda
