#pragma once

#include "decode.cuh"
#include "linear.h"
#include "parts.cuh"

// What the kernels for few and for many nodes share: their arguments, what a lane loads of a tile, the products of a
// tile, and the output.

namespace bidtrie::cuda {

/// Arguments as a kernel wants them.
struct LinearKernel {
  const std::uint8_t* weights;
  unsigned row_tile_bytes, scales_bytes;
  unsigned group_inverse;  // see group_of
  int rows, cols, column_tiles, tiles_per_split, warps;
  Table table;
  const void* x;
  unsigned x_stride;
  int nodes;
  const void* bias;
  void* out;
  unsigned out_stride;
  bool float_out;
  std::uint32_t* counters;
  float* partials;
};

/// How often a tile's sums meet a scale: groups of 16 columns four times, groups of whole tiles once, others twice.
enum class Scales : int { kOnce = 1, kTwice = 2, kFourTimes = 4 };

constexpr int times(Scales scales) {
  return static_cast<int>(scales);
}

/// Columns / 64 * times per group, as a factor: u / n is (u * inverse) >> 16 for n <= 8 and u < 9,362.
constexpr unsigned group_inverse(std::size_t group, Scales scales) {
  const auto n = static_cast<unsigned>(group * static_cast<std::size_t>(times(scales)) / gpu::kColumnTile);
  return (65536 + n - 1) / n;
}

/// What a lane loads of a tile.
template <Codes codes, Pattern pattern, Scales kScales>
struct Tile {
  static constexpr int kTimes = times(kScales);
  static constexpr bool kMin = codes == Codes::kInt4Min;

  Codewords<pattern> words;
  std::uint32_t scales[kTimes];
  std::uint32_t minima[kMin ? kTimes : 1];

  /// `row_tile`: its scales; `tiles`: its tiles.
  __device__ __forceinline__ void read(const LinearKernel& k, const std::uint8_t* row_tile, const std::uint8_t* tiles,
                                       int tile, int lane) {
    words.read(tiles + static_cast<unsigned>(tile) * static_cast<unsigned>(gpu::tile_bytes(pattern)), lane);
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const auto part = static_cast<unsigned>(kTimes * tile + i);
      const unsigned group = kScales == Scales::kFourTimes ? part : part * k.group_inverse >> 16;
      const std::uint8_t* at = row_tile + group * static_cast<unsigned>(gpu::group_bytes(codes));
      if constexpr (kMin) {
        const Words2 both = load_once8(at + 8 * (lane / 4));
        scales[i] = both.w[0];
        minima[i] = both.w[1];
      } else {
        scales[i] = load_once4(at + 4 * (lane / 4));
      }
    }
  }
};

/// sums += scale * parts for both rows.
__device__ __forceinline__ void add_scaled(float (&sums)[4], const float (&parts)[4], const RowPair& scale) {
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] = multiply_add(scale.of[i / 2], parts[i], sums[i]);
}

/// Adds a dense tile's products with 8 N nodes. sums[n][0], [1]: row g, nodes 8n + 2q and the next; [2], [3]: row g + 8.
/// `b(j, n)`: activations of node 8n + g, columns 16 j + 4 q … 16 j + 4 q + 3 of the tile.
template <class T, Codes codes, Scales kScales, int N, class Activations>
__device__ __forceinline__ void add_tile(const Tile<codes, Pattern::kDense, kScales>& tile, int, const Table& table,
                                         const Activations& b, float (&sums)[N][4]) {
  constexpr int kSteps = 4 / times(kScales);  // that share a scale
  constexpr std::uint32_t kOne = std::is_same_v<T, Float16> ? 0x3c003c00u : 0x3f803f80u;
  const std::uint32_t ones[4] = {kOne, kOne, kOne, kOne};
#pragma unroll
  for (int i = 0; i < times(kScales); ++i) {
    std::uint32_t a[kSteps][4];
#pragma unroll
    for (int j = 0; j < kSteps; ++j) decode<T, codes>(tile.words.codes.w[kSteps * i + j], table, a[j]);
    const RowPair scale = row_pair(tile.scales[i]);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      float parts[4] = {}, totals[4] = {};
#pragma unroll
      for (int j = 0; j < kSteps; ++j) {
        const Words2 activations = b(kSteps * i + j, n);
        multiply_16x8x16<T>(parts, a[j], activations.w[0], activations.w[1]);
        // A minimum counts for every activation: their sum is a product with ones.
        if constexpr (codes == Codes::kInt4Min) {
          multiply_16x8x16<T>(totals, ones, activations.w[0], activations.w[1]);
        }
      }
      add_scaled(sums[n], parts, scale);
      if constexpr (codes == Codes::kInt4Min) add_scaled(sums[n], totals, row_pair(tile.minima[i]));
    }
  }
}

/// The same of a sparse tile. `b(s, n, words)`: activations of node 8n + g, word i having columns 32 s + 8 i + 2 q and the
/// next.
template <class T, Codes codes, Pattern pattern, Scales kScales, int N, class Activations>
__device__ __forceinline__ void add_tile(const Tile<codes, pattern, kScales>& tile, int lane, const Table& table,
                                         const Activations& b, float (&sums)[N][4]) {
  // Halves of 32 columns; fours of a half's first 16 columns are in a[0] and a[1], those of its last 16 in a[2] and a[3].
  constexpr int kTimes = times(kScales), kParts = kTimes == 4 ? 2 : 1;
  float parts[N][4];
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    std::uint32_t a[4], positions;
    sparse_operand<T, codes>(tile.words, s, lane, table, a, positions);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      std::uint32_t used[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) used[i] = kParts == 1 || i / 2 == part ? a[i] : 0;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        std::uint32_t activations[4];
        b(s, n, activations);
        if (kTimes > 1 || s == 0) {
#pragma unroll
          for (int i = 0; i < 4; ++i) parts[n][i] = 0;
        }
        multiply_sparse_16x8x32<T>(parts[n], used, activations, positions);
        if (kTimes > 1 || s == 1) {
          add_scaled(sums[n], parts[n], row_pair(tile.scales[kTimes == 1 ? 0 : kParts * s + part]));
        }
      }
    }
  }
}

/// Writes one output.
template <class T>
__device__ __forceinline__ void write_out(const LinearKernel& k, int row, int node, float value) {
  if (row >= k.rows || node >= k.nodes) return;
  if (k.bias != nullptr) value += to_float(load(static_cast<const T*>(k.bias) + row));
  const std::size_t at = static_cast<std::size_t>(node) * k.out_stride + static_cast<unsigned>(row);
  if (k.float_out) {
    store(static_cast<float*>(k.out) + at, value);
  } else {
    store(static_cast<T*>(k.out) + at, from_float<T>(value));
  }
}

}  // namespace bidtrie::cuda
