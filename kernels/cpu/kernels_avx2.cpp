#include "dots_avx2.h"
#include "kernels_table.h"

namespace bidtrie {

const Kernels& avx2_kernels() {
  static constexpr Kernels kernels = table("avx2");
  return kernels;
}

}  // namespace bidtrie
