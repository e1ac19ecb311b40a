#include "dots_portable.h"
#include "kernels_table.h"

namespace bidtrie {

const Kernels& portable_kernels() {
  static constexpr Kernels kernels = table("portable");
  return kernels;
}

}  // namespace bidtrie
