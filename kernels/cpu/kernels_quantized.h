#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bidtrie/weights_q4.h"
#include "bidtrie/weights_q8.h"
#include "kernels_float.h"

// Quantized products on top of four functions that each instruction set brings along, in dots_*.h:
//
//   tile_scales(p)          8 float16 as lanes
//   Q4Dots<T, N>            exact integer products of one group of T q4 tiles with N nodes, a row to each
//   lane q8_dots(w, x)           lane i: exact integer product of columns 4 i … 4 i + 3 of a group of 32
//   q8_scale(p)             float16 as float
//
// A 4-bit product adds, for each group in order, fma(dots, w_scale * x_scale, sum) and fma(w_min, x_sum,
// sum). An 8-bit product adds fma(dots, w_scale * x_scale, sum) to lanes that are summed up at the end.

namespace bidtrie {
namespace {

/// Nodes that share unpacked 4-bit weights: what 16 vector registers hold.
inline constexpr std::size_t kQ4Nodes = 4;
inline constexpr std::size_t kQ8Nodes = 4;

/// Ask for a group of the next T tiles while these are computed: caches do not foresee where another row of
/// tiles goes on.
template <std::size_t T>
inline void prefetch_tiles(const std::uint8_t* group, std::size_t tile_bytes) {
  for (std::size_t t = 0; t < T; ++t) {
    for (std::size_t at = 0; at < q4::kGroupBytes; at += 64) __builtin_prefetch(group + t * tile_bytes + at);
  }
}

/// T tiles of 8 rows by N nodes.
template <std::size_t T, std::size_t N>
inline void q4_tiles(const std::uint8_t* tile, std::size_t groups, const Activations& x, std::size_t node,
                     Lanes (&sums)[T][N]) {
  const std::size_t tile_bytes = groups * q4::kGroupBytes;
  const std::int8_t* codes = x.codes + node * groups * kGroup;
  const float* scale = x.scale + node * groups;
  const float* sum = x.sum + node * groups;
#pragma GCC unroll 8
  for (std::size_t t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) sums[t][n] = Lanes::zero();
  }
  for (std::size_t g = 0; g < groups; ++g) {
    const std::uint8_t* group = tile + g * q4::kGroupBytes;
    if (node == 0) prefetch_tiles<T>(group + T * tile_bytes, tile_bytes);
    const Q4Dots<T, N> dots(group + q4::kCodesAt, tile_bytes, codes + g * kGroup, groups * kGroup);
    Lanes w_scale[T], w_min[T];
#pragma GCC unroll 8
    for (std::size_t t = 0; t < T; ++t) {
      w_scale[t] = tile_scales(group + t * tile_bytes);
      w_min[t] = tile_scales(group + t * tile_bytes + q4::kMinAt);
    }
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) {
      const Lanes x_scale = Lanes::set(scale[n * groups + g]), x_sum = Lanes::set(sum[n * groups + g]);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < T; ++t) {
        sums[t][n] = fma(dots.lanes(t, n), w_scale[t] * x_scale, sums[t][n]);
        sums[t][n] = fma(w_min[t], x_sum, sums[t][n]);
      }
    }
  }
}

template <std::size_t T, std::size_t N>
inline void q4_rows(const MatrixView& w, std::size_t row, std::size_t row_end, const Activations& x,
                    std::size_t node, float* out, std::size_t out_stride, const float* bias,
                    bool accumulate) {
  Lanes sums[T][N];
  q4_tiles<T, N>(w.data + row / kTileRows * q4::tile_bytes(w.cols), w.cols / kGroup, x, node, sums);
#pragma GCC unroll 8
  for (std::size_t t = 0; t < T; ++t) {
    const std::size_t first = row + t * kTileRows,
                      rows = row_end - first < kTileRows ? row_end - first : kTileRows;
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) {
      finish_tile(sums[t][n], bias, first, rows, accumulate, out + (node + n) * out_stride + first);
    }
  }
}

template <std::size_t N>
inline void q4_block(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                     std::size_t node, float* out, std::size_t out_stride, const float* bias,
                     bool accumulate) {
  std::size_t row = row_begin;
  // Two tiles halve what is read of the activations; with one node, it is the weights that take the time, and
  // one stream of them is read fastest.
  if constexpr (N > 1) {
    for (; row + kTileRows < row_end; row += 2 * kTileRows) {
      q4_rows<2, N>(w, row, row_end, x, node, out, out_stride, bias, accumulate);
    }
  }
  for (; row < row_end; row += kTileRows) {
    q4_rows<1, N>(w, row, row_end, x, node, out, out_stride, bias, accumulate);
  }
}

/// R rows by N nodes.
template <std::size_t R, std::size_t N>
inline void q8_tile(const MatrixView& w, std::size_t row, const Activations& x, std::size_t node,
                    Lanes (&sums)[R][N]) {
  const std::size_t groups = w.cols / kGroup;
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t n = 0; n < N; ++n) sums[r][n] = Lanes::zero();
  }
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t r = 0; r < R; ++r) {
      const std::uint8_t* from = w.data + (row + r) * q8::row_bytes(w.cols);
      const float w_scale = q8_scale(from + w.cols + 2 * g);
      for (std::size_t n = 0; n < N; ++n) {
        const std::size_t group = (node + n) * groups + g;
        const Lanes dots = q8_dots(from + g * kGroup, x.codes + group * kGroup);
        sums[r][n] = fma(dots, Lanes::set(w_scale * x.scale[group]), sums[r][n]);
      }
    }
  }
}

template <std::size_t R, std::size_t N>
inline void q8_rows(const MatrixView& w, std::size_t row, const Activations& x, std::size_t node, float* out,
                    std::size_t out_stride, const float* bias, bool accumulate) {
  Lanes sums[R][N];
  q8_tile<R, N>(w, row, x, node, sums);
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t r = 0; r < R; ++r) {
      finish(horizontal_sum(sums[r][n]), bias, row + r, accumulate, out + (node + n) * out_stride + row + r);
    }
  }
}

template <std::size_t N>
inline void q8_block(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                     std::size_t node, float* out, std::size_t out_stride, const float* bias,
                     bool accumulate) {
  std::size_t row = row_begin;
  for (; row + 2 <= row_end; row += 2) q8_rows<2, N>(w, row, x, node, out, out_stride, bias, accumulate);
  if (row < row_end) q8_rows<1, N>(w, row, x, node, out, out_stride, bias, accumulate);
}

/// Nodes of the next tile, so that the tiles of `left` nodes differ by one at most.
inline std::size_t next_nodes(std::size_t left, std::size_t most) {
  const std::size_t tiles = (left + most - 1) / most;
  return (left + tiles - 1) / tiles;
}

inline void linear_q4(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                      std::size_t nodes, float* out, std::size_t out_stride, const float* bias,
                      bool accumulate) {
  for (std::size_t block = row_begin; block < row_end; block += kBlockRows) {
    const std::size_t end = block + kBlockRows < row_end ? block + kBlockRows : row_end;
    std::size_t node = 0;
    while (node < nodes) {
      const std::size_t count = next_nodes(nodes - node, kQ4Nodes);
      switch (count) {
        case 1:
          q4_block<1>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
        case 2:
          q4_block<2>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
        case 3:
          q4_block<3>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
        default:
          q4_block<4>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
      }
      node += count;
    }
  }
}

inline void linear_q8(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                      std::size_t nodes, float* out, std::size_t out_stride, const float* bias,
                      bool accumulate) {
  for (std::size_t block = row_begin; block < row_end; block += kBlockRows) {
    const std::size_t end = block + kBlockRows < row_end ? block + kBlockRows : row_end;
    std::size_t node = 0;
    while (node < nodes) {
      const std::size_t count = next_nodes(nodes - node, kQ8Nodes);
      switch (count) {
        case 1:
          q8_block<1>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
        case 2:
          q8_block<2>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
        case 3:
          q8_block<3>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
        default:
          q8_block<4>(w, block, end, x, node, out, out_stride, bias, accumulate);
          break;
      }
      node += count;
    }
  }
}

inline void rows_q4(const MatrixView& w, const std::int32_t* ids, std::size_t count, const Activations& x,
                    float* out, const float* bias) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(ids[i]);
    Lanes sums[1][1];
    q4_tiles<1, 1>(w.data + row / kTileRows * q4::tile_bytes(w.cols), w.cols / kGroup, x, 0, sums);
    float tile[kTileRows];
    sums[0][0].store(tile);
    finish(tile[row % kTileRows], bias, row, false, out + i);
  }
}

inline void rows_q8(const MatrixView& w, const std::int32_t* ids, std::size_t count, const Activations& x,
                    float* out, const float* bias) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(ids[i]);
    Lanes sums[1][1];
    q8_tile<1, 1>(w, row, x, 0, sums);
    finish(horizontal_sum(sums[0][0]), bias, row, false, out + i);
  }
}

}  // namespace
}  // namespace bidtrie
