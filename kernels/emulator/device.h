#pragma once

// The emulator of the GPU: kernels/cuda/device.cuh takes this file in its place where BIDTRIE_EMULATOR is
// defined, so that g++ compiles the same kernel bodies and a test runs them on the CPU, without any part of
// CUDA.
//
//   Buffer<float> out(100);                              memory of the device, out.get() its address for
//   kernels BIDTRIE_LAUNCH(kernel<8>, grid, block, nullptr, out.get()); out.read(); throws emulator::Error if
//   the kernel left a hole
//
// A thread is a fibre (fibre.h) that runs until it meets others in a collective of its warp or a barrier of
// its block; blocks, warps and lanes run in an order drawn from a seed (launch.h: set_order). Blocks run one
// after the other: a kernel in which one waits for another never ends. One host thread uses all of this at a
// time.
//
// A launch throws emulator::Error (error.h) at the first thing that a GPU would not survive or would answer
// by chance:
//
//   memory.h       addresses outside of buffers, of the host, misaligned, never written; what the launch
//   writes and also
//                  reads as never written; threads whose accesses nothing orders (ordering.h)
//   shared.h       indices out of range, values never written in this block, races between two barriers,
//   copies under
//                  way; more static shared memory than a block has (of what it touches)
//   warp.h, tensor_core.h   lanes that do not meet, lane numbers, positions of sparse operands; values are
//   exact machine.h      barriers that not all threads reach; grids and blocks out of range traffic.h counts
//   what the launch moves: last_traffic()
//
// What it does not see: __launch_bounds__, registers, bank conflicts, time; plain arrays that are __shared__
// (use Shared); divergent branches through one line, which meet here in a collective that hardware would
// split.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "bidtrie/half.h"
#include "emulator/launch.h"
#include "emulator/memory.h"
#include "emulator/shared.h"
#include "emulator/tensor_core.h"
#include "emulator/warp.h"
#include "words.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))

/// Starts a kernel and waits for its end.
#define BIDTRIE_LAUNCH(kernel, grid, block, stream, ...) \
  ::bidtrie::emulator::launch(#kernel, kernel, grid, block, stream, __VA_ARGS__)

namespace bidtrie::cuda {

// What each function does is said in kernels/cuda/device.cuh.

// -- Global memory

inline Words4 load_once16(const void* p, emulator::Site site = emulator::Site::current()) {
  return emulator::load_value(emulator::Way::kLoadOnce, static_cast<const Words4*>(p), site);
}

inline Words2 load_once8(const void* p, emulator::Site site = emulator::Site::current()) {
  return emulator::load_value(emulator::Way::kLoadOnce, static_cast<const Words2*>(p), site);
}

inline std::uint32_t load_once4(const void* p, emulator::Site site = emulator::Site::current()) {
  return emulator::load_value(emulator::Way::kLoadOnce, static_cast<const std::uint32_t*>(p), site);
}

template <class T>
inline T load(const T* p, emulator::Site site = emulator::Site::current()) {
  return emulator::load_value(emulator::Way::kLoad, p, site);
}

template <class T>
inline T load_fresh(const T* p, emulator::Site site = emulator::Site::current()) {
  static_assert(std::is_arithmetic_v<T>, "what __ldcg takes");
  return emulator::load_value(emulator::Way::kLoadFresh, p, site);
}

template <class T>
inline void store(T* p, T value, emulator::Site site = emulator::Site::current()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 16);
  emulator::write_global(p, sizeof(T), alignof(T), &value, site);
}

inline std::uint32_t count_up(std::uint32_t* p, emulator::Site site = emulator::Site::current()) {
  return emulator::count_up_global(p, site);
}

inline void fence(emulator::Site site = emulator::Site::current()) {
  emulator::fence_global(site);
}

// -- Threads

inline void sync_block(emulator::Site site = emulator::Site::current()) {
  emulator::sync_threads(site);
}

template <class T>
inline T shuffle_xor(T value, int mask, emulator::Site site = emulator::Site::current()) {
  return emulator::shuffle_value(value, emulator::lane(site) ^ mask, site);
}

template <class T>
inline T shuffle(T value, int lane, emulator::Site site = emulator::Site::current()) {
  return emulator::shuffle_value(value, lane, site);
}

inline std::uint32_t ballot(bool condition, emulator::Site site = emulator::Site::current()) {
  return emulator::ballot_bits(condition, site);
}

// -- Bits and numbers

template <std::uint32_t mask, std::uint32_t bits>
inline std::uint32_t and_or(std::uint32_t a) {
  return (a & mask) | bits;
}

template <std::uint32_t mask, std::uint32_t bits>
inline std::uint32_t and_xor(std::uint32_t a) {
  return (a & mask) ^ bits;
}

inline std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t out = 0;
  for (unsigned i = 0; i < 4; ++i) {
    out |= static_cast<std::uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return out;
}

inline float to_float(Float16 x) {
  return emulator::decode_float16(x.bits);
}

inline float to_float(Bfloat16 x) {
  return emulator::decode_bfloat16(x.bits);
}

inline float to_float(float x) {
  return x;
}

template <class T>
inline T from_float(float x);

template <>
inline Float16 from_float<Float16>(float x) {
  return {float_to_half(x)};
}

template <>
inline Bfloat16 from_float<Bfloat16>(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
inline float from_float<float>(float x) {
  return x;
}

template <class T>
inline std::uint32_t pack2(float low, float high) {
  return from_float<T>(low).bits | static_cast<std::uint32_t>(from_float<T>(high).bits) << 16;
}

// In float32 and rounded again: float32 has more than twice the bits, so this is the nearest 16-bit number
// too (Figueroa, 1995: when is double rounding innocuous).
template <class T>
inline std::uint32_t subtract2(std::uint32_t a, std::uint32_t b) {
  const auto half = [](std::uint32_t word, int i) {
    return to_float(T{static_cast<std::uint16_t>(word >> 16 * i)});
  };
  return pack2<T>(half(a, 0) - half(b, 0), half(a, 1) - half(b, 1));
}

inline std::uint32_t add_bfloat16(std::uint32_t a, std::uint32_t b) {
  return subtract2<Bfloat16>(a, b ^ 0x80008000u);
}

inline float power_of_2(float x) {
  return std::exp2(x);
}

inline float log_2(float x) {
  return std::log2(x);
}

inline float multiply_add(float a, float b, float c) {
  return std::fma(a, b, c);
}

inline float infinity() {
  return std::numeric_limits<float>::infinity();
}

// -- Tensor cores

template <class T>
constexpr emulator::Decode decoder() {
  static_assert(std::is_same_v<T, Float16> || std::is_same_v<T, Bfloat16>);
  return std::is_same_v<T, Float16> ? emulator::decode_float16 : emulator::decode_bfloat16;
}

template <class T>
inline void multiply_16x8x16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                             emulator::Site site = emulator::Site::current()) {
  emulator::multiply_dense(decoder<T>(), c, a, b0, b1, site);
}

template <class T>
inline void multiply_sparse_16x8x32(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[4],
                                    std::uint32_t positions,
                                    emulator::Site site = emulator::Site::current()) {
  emulator::multiply_sparse(decoder<T>(), c, a, b, positions, site);
}

}  // namespace bidtrie::cuda
