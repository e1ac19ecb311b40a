#pragma once

#include "linear_sums.cuh"

namespace bidtrie::cuda {

/// Products with up to 8 N nodes. Warps that share a row tile take its tiles of columns in turn, so that
/// together they read on end; each keeps the loads of four tiles under way. Then they add up in one order.
///
/// Grid: (groups of row tiles, splits, groups of 8 N nodes).
template <class T, Codes codes, Pattern pattern, Scales kScales, int N>
__global__ void __launch_bounds__(32 * kFewWarps, 2) linear_few(LinearKernel k) {
  // One less where registers would not do.
  constexpr int kAhead = codes == Codes::kInt4Min && N == 2 ? 3 : 4;
  constexpr int kNodes = 8 * N, kRows = static_cast<int>(gpu::kRowTile), kOutputs = kRows * kNodes;
  __shared__ Shared<float, kFewWarps * kOutputs> warp_sums;
  __shared__ Shared<std::uint32_t, 1> flag;

  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int g = lane / 4, q = lane % 4;
  const int first_node = static_cast<int>(blockIdx.z) * kNodes;
  const int first_row_tile = static_cast<int>(blockIdx.x) * (kFewWarps / k.warps);
  const int my_row_tile = first_row_tile + warp / k.warps, turn = warp % k.warps;
  const bool has_rows = my_row_tile * kRows < k.rows;
  const std::uint8_t* row_tile =
      k.weights + static_cast<std::size_t>(has_rows ? my_row_tile : 0) * k.row_tile_bytes;
  const std::uint8_t* scales = scales_from<codes>(row_tile, g);
  const int begin = static_cast<int>(blockIdx.y) * k.tiles_per_split;
  const int end = begin + k.tiles_per_split < k.column_tiles ? begin + k.tiles_per_split : k.column_tiles;
  const int whole_end = end * 64 <= k.cols ? end : end - 1;  // a last tile may be short
  // A node is a column of its own: where there is none, another one's activations do no harm, and are never
  // written.
  constexpr bool kDense = pattern == Pattern::kDense;
  const int my_column = 64 * (begin + turn) + (kDense ? dense_column<kScales>(q) : 16 * (q / 2));
  const T* x[N];
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int node = first_node + 8 * n + g;
    x[n] = static_cast<const T*>(k.x) +
           static_cast<std::size_t>(node < k.nodes ? node : first_node) * k.x_stride + my_column;
  }

  float sums[N][4] = {};
  // `x` stands at the tile; `cols`: of the tile that are there.
  const auto add = [&](const Tile<codes, pattern, kScales>& tile, int cols, auto whole) {
    if constexpr (kDense) {
      const auto b = [&](int s, int n) {
        if (whole) return dense_activations<kScales>(x[n] + 32 * s);
        // Columns come in 16s.
        Words4 words{};
        const int col = 32 * s + dense_column<kScales>(q);
        if constexpr (kScales == Scales::kFourTimes) {
          const Words2 first = col < cols ? load(reinterpret_cast<const Words2*>(x[n] + 32 * s)) : Words2{};
          const Words2 last =
              col + 16 < cols ? load(reinterpret_cast<const Words2*>(x[n] + 32 * s + 16)) : Words2{};
          words = {{first.w[0], first.w[1], last.w[0], last.w[1]}};
        } else if (col < cols) {
          words = load(reinterpret_cast<const Words4*>(x[n] + 32 * s));
        }
        return words;
      };
      add_tile<T, codes, kScales, N>(tile, lane, k.table, b, sums);
    } else {
      const auto b = [&](int s, int n, std::uint32_t (&out)[4]) {
        if (whole || 32 * s + 16 * (q / 2) < cols) {
          sparse_activations(x[n] + 32 * s, q, out);
        } else {
          out[0] = out[1] = out[2] = out[3] = 0;
        }
      };
      add_tile<T, codes, pattern, kScales, N>(tile, lane, k.table, b, sums);
    }
  };

  if (has_rows) {
    constexpr unsigned kTileBytes = static_cast<unsigned>(gpu::tile_bytes(codes, pattern));
    const int first = begin + turn;
    const std::uint8_t* next = row_tile + k.scales_bytes + static_cast<std::size_t>(first) * kTileBytes;
    const unsigned far = static_cast<unsigned>(k.warps) * kTileBytes;  // to this warp's next tile
    Tile<codes, pattern, kScales> ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i * k.warps < end) ahead[i].read(k, scales, next, first + i * k.warps, lane);
      next += far;
    }
    int tile = first;
    while (tile < whole_end) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (tile >= whole_end) break;
        add(ahead[i], 64, std::true_type{});
        if (tile + kAhead * k.warps < end) ahead[i].read(k, scales, next, tile + kAhead * k.warps, lane);
        next += far;
        tile += k.warps;
#pragma unroll
        for (int n = 0; n < N; ++n) x[n] += 64 * k.warps;
      }
    }
    if (tile < end) {
      Tile<codes, pattern, kScales> last;
      last.read(k, scales, row_tile + k.scales_bytes + static_cast<std::size_t>(tile) * kTileBytes, tile,
                lane);
      add(last, k.cols - 64 * tile, std::false_type{});
    }
  }

#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      warp_sums.set(warp * kOutputs + (8 * n + 2 * q + i % 2) * kRows + g + i / 2 * 8, sums[n][i]);
    }
  }
  sync_block();
  for (int output = static_cast<int>(threadIdx.x); output < kFewWarps / k.warps * kOutputs;
       output += 32 * kFewWarps) {
    const int tile = output / kOutputs, in = output % kOutputs;
    float sum = 0;
    for (int w = 0; w < k.warps; ++w) sum += warp_sums.get((tile * k.warps + w) * kOutputs + in);
    if (gridDim.y == 1) {
      write_out<T>(k, (first_row_tile + tile) * kRows + in % kRows, first_node + in / kRows, sum);
    } else {
      const std::size_t group = static_cast<std::size_t>(blockIdx.z) * gridDim.x + blockIdx.x;
      store(k.partials + (group * gridDim.y + blockIdx.y) * kOutputs + static_cast<unsigned>(in), sum);
    }
  }
  if (gridDim.y == 1) return;
  // Only with all eight warps on one row tile, so that a thread has one output at most.
  const std::size_t group = static_cast<std::size_t>(blockIdx.z) * gridDim.x + blockIdx.x;
  if (!is_last_part(k.counters + group, gridDim.y, flag)) return;
  const int output = static_cast<int>(threadIdx.x);
  if (output >= kOutputs) return;
  const float* partials = k.partials + group * gridDim.y * kOutputs + static_cast<unsigned>(output);
  const float sum = sum_parts(partials, kOutputs, gridDim.y);
  write_out<T>(k, first_row_tile * kRows + output % kRows, first_node + output / kRows, sum);
}

}  // namespace bidtrie::cuda
