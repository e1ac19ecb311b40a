#pragma once

#include <cstddef>
#include <cstdint>

#include "bidtrie/weights_gpu.h"
#include "device.cuh"

// Products of matrices of codes with the activations of a few nodes: out[n, r] = w[r] · x[n] + bias[r].

namespace bidtrie::cuda {

/// Type of activations, bias and output.
enum class Float : std::uint8_t { kFloat16, kBfloat16 };

/// Nodes that `few` takes at once; beyond that tensor cores have work enough for `many`.
inline constexpr std::size_t kFewNodes = 16;
/// Nodes that a block of `many` takes.
inline constexpr std::size_t kManyNodes = 64;
/// Row tiles of a block of `many`.
inline constexpr std::size_t kManyRowTiles = 8;
/// Warps of a block of `few`.
inline constexpr int kFewWarps = 8;

/// How the work is cut.
struct LinearPlan {
  int warps;   // of `few` that share the columns of a row tile: 1, 2, 4 or 8
  int splits;  // parts that columns are cut into, a block each; more than 1 only with 8 warps
};

/// All pointers are the device's.
struct Linear {
  WeightFormat format;
  std::size_t rows, cols;
  const std::uint8_t* weights;  // packed as weights_gpu.h says, aligned to 16 bytes
  CodeTable table;              // of kInt4Table

  Float type;
  const void* x;         // [nodes, x_stride], aligned to 16 bytes
  std::size_t x_stride;  // elements, a multiple of 8, at least cols
  std::size_t nodes;
  const void* bias;  // [rows] or null

  void* out;               // [nodes, out_stride]
  std::size_t out_stride;  // elements
  bool float_out;          // the output is float32

  LinearPlan plan;  // linear_plan(…)
  std::uint32_t*
      counters;     // [linear_counters(…)], zeros before their first use; one launch at a time uses them
  float* partials;  // [linear_partials(…)]; so with these
};

/// Whether `few` takes it: sparse matrices only have `few`.
constexpr bool takes_few(const WeightFormat& format, std::size_t nodes) {
  return nodes <= kFewNodes || format.pattern != Pattern::kDense;
}

/// How a matrix is cut so that `multiprocessors` have work. Depends on the matrix alone within each of the
/// two kernels, and so do the bits of a result.
constexpr LinearPlan linear_plan(const WeightFormat& format, std::size_t rows, std::size_t cols,
                                 std::size_t nodes, int multiprocessors) {
  const std::size_t tiles = gpu::column_tiles(cols), row_tiles = gpu::row_tiles(rows);
  const auto processors = static_cast<std::size_t>(multiprocessors);
  const bool few = takes_few(format, nodes);
  // As few warps a row tile as still fill the processors: each then has more to read on end.
  int warps = kFewWarps;
  while (few && warps > 1 && row_tiles * static_cast<std::size_t>(warps) / 2 >= 4 * kFewWarps * processors)
    warps /= 2;
  const std::size_t blocks = few ? row_tiles : ceil_div(row_tiles, kManyRowTiles);
  // Column tiles that a part should have: parts meet in memory, which takes a microsecond.
  const std::size_t least = few ? 8 * kFewWarps : 4;
  std::size_t splits = ceil_div(few ? processors : 2 * processors, blocks);
  if (splits > ceil_div(tiles, least)) splits = ceil_div(tiles, least);
  if (splits < 1) splits = 1;
  return {warps, static_cast<int>(ceil_div(tiles, ceil_div(tiles, splits)))};
}

/// Counters: one for each group of blocks that share an output.
constexpr std::size_t linear_counters(const WeightFormat& format, std::size_t rows, std::size_t nodes,
                                      const LinearPlan& plan) {
  if (plan.splits == 1) return 0;
  const std::size_t row_tiles = gpu::row_tiles(rows);
  return takes_few(format, nodes) ? row_tiles * ceil_div(nodes, kFewNodes)
                                  : ceil_div(row_tiles, kManyRowTiles) * ceil_div(nodes, kManyNodes);
}

/// Floats of the parts' sums.
constexpr std::size_t linear_partials(const WeightFormat& format, std::size_t rows, std::size_t nodes,
                                      const LinearPlan& plan) {
  const std::size_t outputs =
      gpu::kRowTile * (takes_few(format, nodes) ? kFewNodes : kManyRowTiles * kManyNodes);
  return linear_counters(format, rows, nodes, plan) * static_cast<std::size_t>(plan.splits) * outputs;
}

/// Starts the product on `stream`; allocates nothing and waits for nothing. Arguments are as the struct says:
/// callers check them.
cudaError_t linear(const Linear& arguments, cudaStream_t stream);

}  // namespace bidtrie::cuda
