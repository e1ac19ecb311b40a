#pragma once

// Everything of the GPU that the kernels use, in one place: nvcc takes it as instructions, the emulator
// (kernels/emulator) as checked code for the CPU. Kernels touch global memory through load… and store…
// and shared memory through Shared only; that is what lets the emulator see every access.

#ifdef BIDTRIE_EMULATOR
#include "emulator/device.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "words.h"

namespace bidtrie::cuda {

// -- Global memory: addresses are multiples of the width.

/// Weights: read once, kept out of the first-level cache.
__device__ inline Words4 load_once16(const void* p) {
  Words4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
               : "l"(p));
  return v;
}

__device__ inline Words2 load_once8(const void* p) {
  Words2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.w[0]), "=r"(v.w[1]) : "l"(p));
  return v;
}

__device__ inline std::uint32_t load_once4(const void* p) {
  std::uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}

/// What no thread of the launch writes.
template <class T>
__device__ inline T load(const T* p) {
  if constexpr (std::is_same_v<T, Words4>) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
    return {{v.x, v.y, v.z, v.w}};
  } else if constexpr (std::is_same_v<T, Words2>) {
    const uint2 v = __ldg(reinterpret_cast<const uint2*>(p));
    return {{v.x, v.y}};
  } else {
    return *p;
  }
}

/// What other blocks of the launch may have written: from the second-level cache.
template <class T>
__device__ inline T load_fresh(const T* p) {
  return __ldcg(p);
}

template <class T>
__device__ inline void store(T* p, T value) {
  *p = value;
}

/// Adds 1; returns what was there.
__device__ inline std::uint32_t count_up(std::uint32_t* p) {
  return atomicAdd(p, 1u);
}

/// Orders this thread's stores before what it does next, for all blocks.
__device__ inline void fence() {
  __threadfence();
}

// -- Shared memory

/// N values that a block shares; declared `__shared__ Shared<T, N> name;`.
template <class T, int N>
struct alignas(16) Shared {
  __device__ T get(int i) const { return values[i]; }
  __device__ void set(int i, T value) { values[i] = value; }
  /// 8 bytes from value i on.
  __device__ Words2 get8(int i) const { return *reinterpret_cast<const Words2*>(&values[i]); }
  __device__ Words4 get16(int i) const { return *reinterpret_cast<const Words4*>(&values[i]); }

  /// Starts to copy 16 bytes to values[i …]; zeros if not `valid` (then `from` is not read).
  __device__ void copy16(int i, const void* from, bool valid) {
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(&values[i]));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
  }

  T values[N];
};

/// Ends a group of copies.
__device__ inline void copies_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most N groups of this thread's copies are under way; others see them after sync_block().
template <int N>
__device__ inline void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// -- Threads

__device__ inline void sync_block() {
  __syncthreads();
}

/// The value of the lane whose number differs by `mask`; all 32 lanes call.
template <class T>
__device__ inline T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

template <class T>
__device__ inline T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

/// Bit l: the condition of lane l.
__device__ inline std::uint32_t ballot(bool condition) {
  return __ballot_sync(0xffffffffu, condition);
}

// -- Bits and numbers

/// (a & mask) | bits in one instruction.
template <std::uint32_t mask, std::uint32_t bits>
__device__ inline std::uint32_t and_or(std::uint32_t a) {
  std::uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(out) : "r"(a), "n"(mask), "n"(bits));
  return out;
}

/// (a & mask) ^ bits in one instruction.
template <std::uint32_t mask, std::uint32_t bits>
__device__ inline std::uint32_t and_xor(std::uint32_t a) {
  std::uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0x6A;" : "=r"(out) : "r"(a), "n"(mask), "n"(bits));
  return out;
}

/// Byte i of the result is byte (selector >> 4 i & 7) of b:a, a holding bytes 0 to 3.
__device__ inline std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  return __byte_perm(a, b, selector);
}

/// a + b for both halves of a word of bfloat16s.
__device__ inline std::uint32_t add_bfloat16(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  // bfloat16 has no addition before sm_90: a * 1 + b.
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(0x3f803f80u), "r"(b));
  return out;
}

/// a - b for both halves of a word.
template <class T>
__device__ inline std::uint32_t subtract2(std::uint32_t a, std::uint32_t b);

template <>
__device__ inline std::uint32_t subtract2<Float16>(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

template <>
__device__ inline std::uint32_t subtract2<Bfloat16>(std::uint32_t a, std::uint32_t b) {
  return add_bfloat16(a, b ^ 0x80008000u);  // -b by its signs
}

__device__ inline float to_float(Float16 x) {
  return __half2float(__ushort_as_half(x.bits));
}

__device__ inline float to_float(Bfloat16 x) {
  return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16);
}

/// To nearest even.
template <class T>
__device__ inline T from_float(float x);

template <>
__device__ inline Float16 from_float<Float16>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}

template <>
__device__ inline Bfloat16 from_float<Bfloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

template <>
__device__ inline float from_float<float>(float x) {
  return x;
}

__device__ inline float to_float(float x) {
  return x;
}

/// `low` and `high` as the halves of a word.
template <class T>
__device__ inline std::uint32_t pack2(float low, float high) {
  return from_float<T>(low).bits | static_cast<std::uint32_t>(from_float<T>(high).bits) << 16;
}

/// 2^x, within 2 units in the last place; 0 for -infinity.
__device__ inline float power_of_2(float x) {
  return exp2f(x);
}

/// Logarithm to base 2, within 2 units in the last place; x > 0.
__device__ inline float log_2(float x) {
  return log2f(x);
}

__device__ inline float multiply_add(float a, float b, float c) {
  return fmaf(a, b, c);
}

__device__ inline float infinity() {
  return __int_as_float(0x7f800000);
}

// -- Tensor cores: D = A B + C for one warp, float32 sums. Lane l has g = l / 4, q = l % 4.
//
//   A [16, 16]  a[0] row g, columns 2q 2q+1   a[1] row g + 8   a[2] row g, columns 8+2q 9+2q   a[3] row g + 8
//   B [16, 8]   b0: column g, rows 2q 2q+1;   b1: rows 8+2q 9+2q
//   C [16, 8]   c[0] c[1]: row g, columns 2q 2q+1;   c[2] c[3]: row g + 8

template <class T>
__device__ inline void multiply_16x8x16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                        std::uint32_t b1);

template <>
__device__ inline void multiply_16x8x16<Float16>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                 std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void multiply_16x8x16<Bfloat16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                  std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with two of every four columns of A [16, 32] kept:
//
//   A          a[0]: row g, the two kept of columns 4q … 4q+3    a[1]: row g + 8
//              a[2]: row g, of 16+4q … 19+4q                     a[3]: row g + 8
//   B [32, 8]  b[i]: column g, rows 8i+2q and 8i+2q+1
//   positions  of lanes q = 0 and 1, others unread: 4 bits for each four, the first kept in the low 2,
//              strictly ascending; low half word row g, fours 4q … 4q+3 from the lowest bits on; high half
//              word row g + 8

template <class T>
__device__ inline void multiply_sparse_16x8x32(float (&c)[4], const std::uint32_t (&a)[4],
                                               const std::uint32_t (&b)[4], std::uint32_t positions);

template <>
__device__ inline void multiply_sparse_16x8x32<Float16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                        const std::uint32_t (&b)[4],
                                                        std::uint32_t positions) {
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, 0x0;"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]),
        "r"(positions));
}

template <>
__device__ inline void multiply_sparse_16x8x32<Bfloat16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                         const std::uint32_t (&b)[4],
                                                         std::uint32_t positions) {
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, 0x0;"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]),
        "r"(positions));
}

}  // namespace bidtrie::cuda

/// Starts a kernel; its arguments are plain values and pointers to device memory.
#define BIDTRIE_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)

#endif
