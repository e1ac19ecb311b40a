#pragma once

#include "decode.cuh"
#include "linear.h"
#include "parts.cuh"

// What the kernels for few and for many nodes share: their arguments, what a lane loads of a tile, the
// products of a tile, and the output.

namespace bidtrie::cuda {

/// Arguments as a kernel wants them.
struct LinearKernel {
  const std::uint8_t* weights;
  unsigned row_tile_bytes, scales_bytes;
  unsigned group_inverse;  // see the function
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

/// How often a tile's sums meet a scale: groups of 16 columns four times, groups of whole tiles once, others
/// twice.
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

  Codewords<codes, pattern> words;
  std::uint32_t scales[kTimes];
  std::uint32_t minima[kMin ? kTimes : 1];

  /// `scales_of`: the row tile's scales, from row g on; `codes_of`: the tile.
  __device__ __forceinline__ void read(const LinearKernel& k, const std::uint8_t* scales_of,
                                       const std::uint8_t* codes_of, int tile, int lane) {
    words.read(codes_of, lane);
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const auto part = static_cast<unsigned>(kTimes * tile + i);
      const unsigned group = kScales == Scales::kFourTimes ? part : part * k.group_inverse >> 16;
      const std::uint8_t* at = scales_of + group * static_cast<unsigned>(gpu::group_bytes(codes));
      if constexpr (kMin) {
        const Words2 both = load_once8(at);
        scales[i] = both.w[0];
        minima[i] = both.w[1];
      } else {
        scales[i] = load_once4(at);
      }
    }
  }
};

/// Where a lane's scales begin in a row tile.
template <Codes codes>
__device__ __forceinline__ const std::uint8_t* scales_from(const std::uint8_t* row_tile, int g) {
  return row_tile + (codes == Codes::kInt4Min ? 8 : 4) * g;
}

/// Where in a half tile a lane's activations for dense products begin.
template <Scales kScales>
__device__ constexpr int dense_column(int q) {
  return kScales == Scales::kFourTimes ? 4 * q : 8 * q;
}

/// A lane's activations of half a tile for dense products, of the node whose columns of that half begin 16
/// bytes aligned at `x`: 8 columns on end, or of both 16s four (weights_gpu.h).
template <Scales kScales>
__device__ __forceinline__ Words4 dense_activations(const void* x) {
  if constexpr (kScales == Scales::kFourTimes) {
    const Words2 first = load(static_cast<const Words2*>(x)), last = load(static_cast<const Words2*>(x) + 4);
    return {{first.w[0], first.w[1], last.w[0], last.w[1]}};
  } else {
    return load(static_cast<const Words4*>(x));
  }
}

/// sums += scale * parts for both rows.
__device__ __forceinline__ void add_scaled(float (&sums)[4], const float (&parts)[4], const RowPair& scale) {
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] = multiply_add(scale.of[i / 2], parts[i], sums[i]);
}

/// Adds a dense tile's products with 8 N nodes. sums[n][0], [1]: row g, nodes 8n + 2q and the next; [2], [3]:
/// row g + 8. `b(s, n)`: activations of node 8n + g for half s of the tile: words 0 and 1 for its first step,
/// 2 and 3 for its last.
template <class T, Codes codes, Scales kScales, int N, class Activations>
__device__ __forceinline__ void add_tile(const Tile<codes, Pattern::kDense, kScales>& tile, int,
                                         const Table& table, const Activations& b, float (&sums)[N][4]) {
  constexpr int kTimes = times(kScales);
  constexpr std::uint32_t kOne = std::is_same_v<T, Float16> ? 0x3c003c00u : 0x3f803f80u;
  const std::uint32_t ones[4] = {kOne, kOne, kOne, kOne};
  float parts[N][4], totals[N][4];
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    std::uint32_t a[2][4];
#pragma unroll
    for (int j = 0; j < 2; ++j) dense_operand<T, codes>(tile.words, 2 * s + j, table, a[j]);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Words4 activations = b(s, n);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int step = 2 * s + j;  // of four
        if (step * kTimes % 4 == 0) {
#pragma unroll
          for (int i = 0; i < 4; ++i) parts[n][i] = totals[n][i] = 0;
        }
        multiply_16x8x16<T>(parts[n], a[j], activations.w[2 * j], activations.w[2 * j + 1]);
        // A minimum counts for every activation: their sum is a product with ones.
        if constexpr (codes == Codes::kInt4Min) {
          multiply_16x8x16<T>(totals[n], ones, activations.w[2 * j], activations.w[2 * j + 1]);
        }
        if ((step + 1) * kTimes % 4 == 0) {
          const int scale = step * kTimes / 4;
          add_scaled(sums[n], parts[n], row_pair(tile.scales[scale]));
          if constexpr (codes == Codes::kInt4Min)
            add_scaled(sums[n], totals[n], row_pair(tile.minima[scale]));
        }
      }
    }
  }
}

/// A lane's activations of half a tile for sparse products: `x` is 16 (q / 2) columns into the half; each of
/// the fours there gives its first or its second two columns.
__device__ __forceinline__ void sparse_activations(const void* x, int q, std::uint32_t (&out)[4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const Words4 words = load(static_cast<const Words4*>(x) + i);
    out[2 * i] = q % 2 == 0 ? words.w[0] : words.w[1];
    out[2 * i + 1] = q % 2 == 0 ? words.w[2] : words.w[3];
  }
}

/// The same of a sparse tile. `b(s, n, words)`: activations of node 8n + g for half s as sparse_activations
/// gives them.
template <class T, Codes codes, Pattern pattern, Scales kScales, int N, class Activations>
__device__ __forceinline__ void add_tile(const Tile<codes, pattern, kScales>& tile, int lane,
                                         const Table& table, const Activations& b, float (&sums)[N][4]) {
  // Of a half of 32 columns, lanes of even q have the fours of the first 16 columns, those of odd q of the
  // last 16.
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
      for (int i = 0; i < 4; ++i) used[i] = kParts == 1 || lane % 2 == part ? a[i] : 0;
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
