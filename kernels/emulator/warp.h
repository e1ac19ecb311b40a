#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/error.h"

namespace bidtrie::emulator {

/// The bits that lane from(mine) of the warp brings; all lanes call at the same line.
std::uint64_t shuffle_bits(std::uint64_t bits, int from, const Site& site);
std::uint32_t ballot_bits(bool condition, const Site& site);
/// Waits for all threads of the block, which call at the same line.
void sync_threads(const Site& site);
/// The lane of the thread that runs.
int lane(const Site& site);

template <class T>
T shuffle_value(T value, int from, const Site& site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "what __shfl_sync takes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle_bits(bits, from, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace bidtrie::emulator
