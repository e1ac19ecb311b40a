#include "linear_launch.cuh"

namespace bidtrie::cuda {

cudaError_t linear_float16(const Linear& a, cudaStream_t stream) {
  return launch_for_format<Float16>(a, stream);
}

}  // namespace bidtrie::cuda
