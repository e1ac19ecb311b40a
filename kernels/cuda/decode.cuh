#pragma once

#include "bidtrie/weights_gpu.h"
#include "device.cuh"

// Codes to what tensor cores multiply: each code becomes the number that it stands for, without its scale, as
// a 16-bit float. Small integers are exact in both types.

namespace bidtrie::cuda {

/// A 16-bit float whose last bits count integers: base + n is base | n.
template <class T>
inline constexpr std::uint32_t kBase = 0;
template <>
inline constexpr std::uint32_t kBase<Float16> = 0x6400;  // 1024
template <>
inline constexpr std::uint32_t kBase<Bfloat16> = 0x4300;  // 128

/// Both halves.
constexpr std::uint32_t twice(std::uint32_t bits) {
  return bits | bits << 16;
}

/// The 16 entries of a table, each + 32, as bytes.
struct Table {
  std::uint32_t words[4];
};

/// Eight 4-bit codes of a word as numbers: a[i] has nibble i in its low and nibble 4 + i in its high half.
template <class T, Codes codes>
__device__ __forceinline__ void decode(std::uint32_t word, const Table& table, std::uint32_t (&a)[4]) {
  constexpr std::uint32_t base = kBase<T>;
  if constexpr (codes == Codes::kInt4Table) {
    const std::uint32_t low_bits = word & 0x77777777u, high_bits = (word & 0x88888888u) >> 1;
    std::uint32_t bytes[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t low = pick_bytes(table.words[0], table.words[1], low_bits >> 16 * i);
      const std::uint32_t high = pick_bytes(table.words[2], table.words[3], low_bits >> 16 * i);
      bytes[i] = pick_bytes(low, high, 0x3210u | high_bits >> 16 * i);
    }
    const std::uint32_t first = pick_bytes(bytes[0], bytes[1], 0x5140),
                        last = pick_bytes(bytes[0], bytes[1], 0x7362);
    constexpr std::uint32_t high_byte = base >> 8;
    a[0] = subtract2<T>(pick_bytes(first, high_byte, 0x4140), twice(base + kTableShift));
    a[1] = subtract2<T>(pick_bytes(first, high_byte, 0x4342), twice(base + kTableShift));
    a[2] = subtract2<T>(pick_bytes(last, high_byte, 0x4140), twice(base + kTableShift));
    a[3] = subtract2<T>(pick_bytes(last, high_byte, 0x4342), twice(base + kTableShift));
  } else {
    constexpr std::uint32_t zero = twice(codes == Codes::kInt4 ? base + 8 : base);
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = subtract2<T>(and_or<0x000f000f, twice(base)>(word >> 4 * i), zero);
  }
}

/// Eight 8-bit codes, each + 128, of two words as numbers: a[i] has byte i % 2 of word i / 2 in its low and
/// byte i % 2 + 2 in its high half.
template <class T>
__device__ __forceinline__ void decode_bytes(std::uint32_t first, std::uint32_t last, std::uint32_t (&a)[4]) {
  constexpr std::uint32_t base = kBase<T>, kNegative = 0x8000;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t word = i < 2 ? first : last;
    if constexpr (std::is_same_v<T, Float16>) {
      a[i] = subtract2<T>(pick_bytes(word, base >> 8, i % 2 == 0 ? 0x4240 : 0x4341), twice(base + 128));
    } else {
      // From 128 on a bfloat16 counts 7 bits only: 128 + the low 7 bits of a byte, less 128 if its high bit
      // is set, else less 256. Those two differ in the last bit of their exponents, just where that bit is.
      const std::uint32_t bytes = word >> 8 * (i % 2);
      a[i] = add_bfloat16(and_or<0x007f007f, twice(base)>(bytes),
                          and_xor<0x00800080, twice(kNegative | (base ^ 0x80))>(bytes));
    }
  }
}

/// What a lane loads of a tile's codes.
template <Codes codes, Pattern pattern>
struct Codewords;

template <Codes kCodes>
struct Codewords<kCodes, Pattern::kDense> {
  Words4 codes;

  __device__ __forceinline__ void read(const std::uint8_t* tile, int lane) {
    codes = load_once16(tile + 16 * lane);
  }
};

template <>
struct Codewords<Codes::kInt8, Pattern::kDense> {
  Words4 halves[2];

  __device__ __forceinline__ void read(const std::uint8_t* tile, int lane) {
#pragma unroll
    for (int s = 0; s < 2; ++s) halves[s] = load_once16(tile + 512 * s + 16 * lane);
  }
};

template <Codes kCodes>
struct Codewords<kCodes, Pattern::k2of4> {
  Words2 codes;
  Words2 positions;  // of lanes q = 0 and 1: the ones that tensor cores read them from

  __device__ __forceinline__ void read(const std::uint8_t* tile, int lane) {
    codes = load_once8(tile + 8 * lane);
    positions = load_once8(tile + 256 + 16 * (lane / 4) + 8 * (lane & 1));
  }
};

template <Codes kCodes>
struct Codewords<kCodes, Pattern::k1of4> {
  std::uint32_t codes;
  Words2 positions;

  __device__ __forceinline__ void read(const std::uint8_t* tile, int lane) {
    codes = load_once4(tile + 4 * lane);
    positions = load_once8(tile + 128 + 8 * (lane / 4));
  }
};

/// Step `j` (16 columns) of a dense tile for the tensor cores.
template <class T, Codes codes>
__device__ __forceinline__ void dense_operand(const Codewords<codes, Pattern::kDense>& words, int j,
                                              const Table& table, std::uint32_t (&a)[4]) {
  if constexpr (codes == Codes::kInt8) {
    const Words4& half = words.halves[j / 2];
    decode_bytes<T>(half.w[2 * (j % 2)], half.w[2 * (j % 2) + 1], a);
  } else {
    decode<T, codes>(words.codes.w[j], table, a);
  }
}

/// Half `s` (32 columns) of a 2:4 tile for the tensor cores.
template <class T, Codes codes>
__device__ __forceinline__ void sparse_operand(const Codewords<codes, Pattern::k2of4>& words, int s, int,
                                               const Table& table, std::uint32_t (&a)[4],
                                               std::uint32_t& positions) {
  decode<T, codes>(words.codes.w[s], table, a);
  positions = words.positions.w[s];
}

/// The same of a 1:4 tile: a kept weight at position p < 3 is the first of two, p and 3; one at 3 the second
/// of 2 and 3. The other of the two is 0.
template <class T, Codes codes>
__device__ __forceinline__ void sparse_operand(const Codewords<codes, Pattern::k1of4>& words, int s, int lane,
                                               const Table& table, std::uint32_t (&a)[4],
                                               std::uint32_t& positions) {
  const int q = lane % 4;
  std::uint32_t both[4];
  decode<T, codes>(words.codes, table, both);  // low halves: columns 0 … 31; high halves: 32 … 63
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool is_last = (words.positions.w[i / 2] >> (16 * s + 8 * (i % 2) + 2 * q) & 3) == 3;
    const std::uint32_t first = s == 0 ? 0x4410 : 0x4432, second = s == 0 ? 0x1044 : 0x3244;
    a[i] = pick_bytes(both[i], 0, is_last ? second : first);
  }
  std::uint32_t fields = (q % 2 == 0 ? words.positions.w[0] : words.positions.w[1]) >> 16 * s & 0xffff;
  fields = (fields | fields << 8) & 0x00ff00ff;
  fields = (fields | fields << 4) & 0x0f0f0f0f;
  fields = (fields | fields << 2) & 0x33333333;
  positions = (fields | 0xcccccccc) ^ (fields & fields >> 1 & 0x11111111);
}

/// A scale or minimum of rows g and g + 8.
struct RowPair {
  float of[2];
};

__device__ __forceinline__ RowPair row_pair(std::uint32_t halves) {
  return {{to_float(Float16{static_cast<std::uint16_t>(halves)}),
           to_float(Float16{static_cast<std::uint16_t>(halves >> 16)})}};
}

}  // namespace bidtrie::cuda
