#pragma once

#include "linear_sums.cuh"

namespace bidtrie::cuda {

/// Products of dense matrices with many nodes: a block has 8 row tiles, one a warp, and 64 nodes, whose
/// activations it copies to shared memory two tiles of columns ahead, since all its warps want them. Weights
/// come straight, two ahead.
///
///   activations of a node in shared memory: 64 of a tile's columns and 32 to spare: two nodes' 16-byte
///   loads, which are served together, then meet each bank once
///
/// Grid: (groups of 8 row tiles, splits, groups of 64 nodes).
template <class T, Codes codes, Scales kScales>
__global__ void __launch_bounds__(32 * static_cast<int>(kManyRowTiles), 2) linear_many(LinearKernel k) {
  constexpr int kNodes = static_cast<int>(kManyNodes), N = kNodes / 8,
                kWarps = static_cast<int>(kManyRowTiles);
  constexpr int kStride = 96, kStages = 3, kAhead = 2, kRows = static_cast<int>(gpu::kRowTile);
  constexpr std::size_t kTileBytes = gpu::tile_bytes(codes, Pattern::kDense);
  __shared__ Shared<T, kStages * kNodes * kStride> staged;
  __shared__ Shared<std::uint32_t, 1> flag;

  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int g = lane / 4, q = lane % 4;
  const int first_node = static_cast<int>(blockIdx.z) * kNodes;
  const int my_tile = static_cast<int>(blockIdx.x) * kWarps + warp;
  const bool has_rows = my_tile * kRows < k.rows;
  const std::uint8_t* row_tile =
      k.weights + static_cast<std::size_t>(has_rows ? my_tile : 0) * k.row_tile_bytes;
  const std::uint8_t* scales = scales_from<codes>(row_tile, g);
  const std::uint8_t* tiles = row_tile + k.scales_bytes;
  const int begin = static_cast<int>(blockIdx.y) * k.tiles_per_split;
  const int end = begin + k.tiles_per_split < k.column_tiles ? begin + k.tiles_per_split : k.column_tiles;

  // Copies a tile's activations, if there is one, and closes the group of copies in any case.
  const auto stage = [&](int tile) {
    if (tile < end) {
      const int to = (tile - begin) % kStages * kNodes;
      // 8 copies of 16 bytes a node, 2 a thread.
#pragma unroll
      for (int i = 0; i < kNodes * 8 / (32 * kWarps); ++i) {
        const int copy = static_cast<int>(threadIdx.x) + i * 32 * kWarps;
        const int node = copy / 8, col = 64 * tile + copy % 8 * 8;
        const bool valid = first_node + node < k.nodes && col < k.cols;
        const T* from = static_cast<const T*>(k.x);
        if (valid)
          from += static_cast<std::size_t>(first_node + node) * k.x_stride + static_cast<unsigned>(col);
        staged.copy16((to + node) * kStride + copy % 8 * 8, from, valid);
      }
    }
    copies_commit();
  };

  float sums[N][4] = {};
  Tile<codes, Pattern::kDense, kScales> ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (begin + i < end)
      ahead[i].read(k, scales, tiles + static_cast<std::size_t>(begin + i) * kTileBytes, begin + i, lane);
  }
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) stage(begin + i);
  for (int first = begin; first < end; first += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int tile = first + i;
      if (tile >= end) break;
      copies_wait<kStages - 2>();
      sync_block();  // what all threads copied is there, and the stage before this one is free
      stage(tile + kStages - 1);
      const int from = (tile - begin) % kStages * kNodes;
      const auto b = [&](int s, int n) {
        const int at = (from + 8 * n + g) * kStride + 32 * s + dense_column<kScales>(q);
        if constexpr (kScales != Scales::kFourTimes) return staged.get16(at);
        const Words2 early = staged.get8(at), late = staged.get8(at + 16);
        return Words4{{early.w[0], early.w[1], late.w[0], late.w[1]}};
      };
      if (!has_rows) continue;
      add_tile<T, codes, kScales, N>(ahead[i], lane, k.table, b, sums);
      const int next = tile + kAhead;
      if (next < end)
        ahead[i].read(k, scales, tiles + static_cast<std::size_t>(next) * kTileBytes, next, lane);
    }
  }

  if (gridDim.y > 1) {
    // A thread's sums stay together: what one thread of a part has, the same thread of the last part adds.
    constexpr unsigned kThreads = 32 * kWarps, kValues = 4 * N;
    const std::size_t group = static_cast<std::size_t>(blockIdx.z) * gridDim.x + blockIdx.x;
    float* partials = k.partials + group * gridDim.y * kThreads * kValues + threadIdx.x;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store(partials + (blockIdx.y * kValues + static_cast<unsigned>(4 * n + i)) * kThreads, sums[n][i]);
      }
    }
    if (!is_last_part(k.counters + group, gridDim.y, flag)) return;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] = 0;
    }
    for (unsigned part = 0; part < gridDim.y; ++part) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[n][i] += load_fresh(partials + (part * kValues + static_cast<unsigned>(4 * n + i)) * kThreads);
        }
      }
    }
  }
  if (!has_rows) return;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      write_out<T>(k, my_tile * kRows + g + i / 2 * 8, first_node + 8 * n + 2 * q + i % 2, sums[n][i]);
    }
  }
}

}  // namespace bidtrie::cuda
