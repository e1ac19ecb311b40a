#include "dots_avx512.h"
#include "kernels_table.h"

namespace bidtrie {

const Kernels& avx512_kernels() {
  static constexpr Kernels kernels = table("avx512");
  return kernels;
}

}  // namespace bidtrie
