#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator/dimensions.h"
#include "emulator/error.h"
#include "emulator/traffic.h"

namespace bidtrie::emulator {

/// Blocks, and the warps and lanes between two barriers, run in an order drawn from `seed` and the number of
/// launches since: what depends on the order shows when a test tries several seeds.
void set_order(std::uint64_t seed);

/// What the last launch moved; of a launch that failed, up to the error.
const Traffic& last_traffic();

/// Static shared memory that a block of the last launch touched, in bytes.
std::size_t last_shared_bytes();

/// Calls body(arguments) once for each thread of the grid.
void run_grid(const char* kernel, dim3 grid, dim3 block, void (*body)(const void*), const void* arguments);

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t /*stream*/,
            Arguments... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a kernel takes plain values");
  using Call = std::pair<void (*)(Parameters...), std::tuple<Parameters...>>;
  const Call call{kernel, {static_cast<Parameters>(arguments)...}};
  run_grid(
      name, grid, block,
      [](const void* p) {
        const Call& made = *static_cast<const Call*>(p);
        std::apply(made.first, made.second);
      },
      &call);
}

}  // namespace bidtrie::emulator
