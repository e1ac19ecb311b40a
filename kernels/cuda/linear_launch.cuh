#pragma once

#include "linear_few.cuh"
#include "linear_many.cuh"

namespace bidtrie::cuda {

inline LinearKernel kernel_arguments(const Linear& a, Scales scales) {
  LinearKernel k{};
  k.weights = a.weights;
  k.row_tile_bytes = static_cast<unsigned>(gpu::row_tile_bytes(a.format, a.cols));
  k.scales_bytes = static_cast<unsigned>(gpu::scales_bytes(a.format, a.cols));
  k.group_inverse = group_inverse(a.format.group, scales);
  k.rows = static_cast<int>(a.rows);
  k.cols = static_cast<int>(a.cols);
  k.column_tiles = static_cast<int>(gpu::column_tiles(a.cols));
  k.tiles_per_split = (k.column_tiles + a.plan.splits - 1) / a.plan.splits;
  k.warps = a.plan.warps;
  for (std::size_t i = 0; i < 16; ++i) {
    k.table.words[i / 4] |= static_cast<std::uint32_t>(a.table[i] + kTableShift) << 8 * (i % 4);
  }
  k.x = a.x;
  k.x_stride = static_cast<unsigned>(a.x_stride);
  k.nodes = static_cast<int>(a.nodes);
  k.bias = a.bias;
  k.out = a.out;
  k.out_stride = static_cast<unsigned>(a.out_stride);
  k.float_out = a.float_out;
  k.counters = a.counters;
  k.partials = a.partials;
  return k;
}

template <class T, Codes codes, Pattern pattern, Scales kScales>
cudaError_t launch_linear(const Linear& a, cudaStream_t stream) {
  const LinearKernel k = kernel_arguments(a, kScales);
  const auto splits = static_cast<unsigned>(a.plan.splits);
  const std::size_t row_tiles = gpu::row_tiles(a.rows);
  if (takes_few(a.format, a.nodes)) {
    const auto blocks =
        static_cast<unsigned>(ceil_div(row_tiles, static_cast<std::size_t>(kFewWarps / a.plan.warps)));
    const dim3 block(32 * kFewWarps);
    if (a.nodes <= 8) {
      BIDTRIE_LAUNCH((linear_few<T, codes, pattern, kScales, 1>), dim3(blocks, splits, 1), block, stream, k);
    } else {
      const auto groups = static_cast<unsigned>(ceil_div(a.nodes, kFewNodes));
      BIDTRIE_LAUNCH((linear_few<T, codes, pattern, kScales, 2>), dim3(blocks, splits, groups), block, stream,
                     k);
    }
  } else if constexpr (pattern == Pattern::kDense) {
    const dim3 grid(static_cast<unsigned>(ceil_div(row_tiles, kManyRowTiles)), splits,
                    static_cast<unsigned>(ceil_div(a.nodes, kManyNodes)));
    BIDTRIE_LAUNCH((linear_many<T, codes, kScales>), grid, dim3(32 * static_cast<unsigned>(kManyRowTiles)),
                   stream, k);
  }
  return cudaGetLastError();
}

template <class T, Codes codes, Pattern pattern>
cudaError_t launch_for_group(const Linear& a, cudaStream_t stream) {
  if (a.format.group == 16) return launch_linear<T, codes, pattern, Scales::kFourTimes>(a, stream);
  if (a.format.group % gpu::kColumnTile == 0)
    return launch_linear<T, codes, pattern, Scales::kOnce>(a, stream);
  return launch_linear<T, codes, pattern, Scales::kTwice>(a, stream);
}

/// All formats of one type of activations; each type is a file, so that they compile side by side.
template <class T>
cudaError_t launch_for_format(const Linear& a, cudaStream_t stream) {
  const Codes codes = a.format.codes;
  const bool table = codes == Codes::kInt4Table;
  switch (a.format.pattern) {
    case Pattern::kDense:
      if (codes == Codes::kInt8) return launch_for_group<T, Codes::kInt8, Pattern::kDense>(a, stream);
      if (codes == Codes::kInt4Min) return launch_for_group<T, Codes::kInt4Min, Pattern::kDense>(a, stream);
      return table ? launch_for_group<T, Codes::kInt4Table, Pattern::kDense>(a, stream)
                   : launch_for_group<T, Codes::kInt4, Pattern::kDense>(a, stream);
    case Pattern::k2of4:
      return table ? launch_for_group<T, Codes::kInt4Table, Pattern::k2of4>(a, stream)
                   : launch_for_group<T, Codes::kInt4, Pattern::k2of4>(a, stream);
    case Pattern::k1of4:
      return table ? launch_for_group<T, Codes::kInt4Table, Pattern::k1of4>(a, stream)
                   : launch_for_group<T, Codes::kInt4, Pattern::k1of4>(a, stream);
  }
  return cudaSuccess;
}

cudaError_t linear_float16(const Linear& a, cudaStream_t stream);
cudaError_t linear_bfloat16(const Linear& a, cudaStream_t stream);

}  // namespace bidtrie::cuda
