#include <chrono>

#include "check.h"
#include "device.cuh"
namespace bidtrie::cuda {
__global__ void sum(const float* x, float* out, int n) {
  __shared__ Shared<float, 8> sums;
  float s = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) s += load(x + i);
  for (int far = 1; far < 32; far *= 2) s += shuffle_xor(s, far);
  if (threadIdx.x % 32 == 0) sums.set(static_cast<int>(threadIdx.x / 32), s);
  sync_block();
  if (threadIdx.x == 0) {
    float t = 0;
    for (int i = 0; i < 8; ++i) t += sums.get(i);
    store(out + blockIdx.x, t);
  }
}
__global__ void spin(float* out) {
  float s = static_cast<float>(threadIdx.x);
  for (int i = 0; i < 1000; ++i) s = shuffle_xor(s, 1) + 1;
  store(out + threadIdx.x, s);
}
}  // namespace bidtrie::cuda
using namespace bidtrie;
int main() {
  emulator::Buffer<float> x(std::vector<float>(1000, 1.f)), out(3);
  BIDTRIE_LAUNCH(cuda::sum, 3, 256, nullptr, x.get(), out.get(), 1000);
  for (float v : out.read()) CHECK(v == 1000);
  const auto& t = emulator::last_traffic();
  std::printf("%lu %lu %lu %lu\n", t[emulator::Way::kLoad].accesses, t[emulator::Way::kLoad].requested,
              t[emulator::Way::kLoad].sectors, t[emulator::Way::kLoad].unique);
  try {
    BIDTRIE_LAUNCH(cuda::sum, 3, 256, nullptr, x.get(), out.get(), 1001);
  } catch (const emulator::Error& e) {
    std::puts(e.what());
  }
  emulator::Buffer<float> o2(256);
  auto a = std::chrono::steady_clock::now();
  BIDTRIE_LAUNCH(cuda::spin, 1, 256, nullptr, o2.get());
  std::printf("%f s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - a).count());
}
