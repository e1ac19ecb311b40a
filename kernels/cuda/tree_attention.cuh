#pragma once

#include "parts.cuh"
#include "tree_attention.h"

namespace bidtrie::cuda {

struct AttentionKernel {
  const void *queries, *keys, *values;
  void* out;
  std::size_t query_stride, out_stride, page_stride, slot_stride, head_stride;
  int page_size, max_pages, sequences, group, mask_words;
  const std::int32_t *page_table, *first_node, *prefix_length, *length;
  const std::uint32_t* mask;
  float scale;  // times log2(e)
  std::uint32_t* counters;
  float* partials;
};

/// Where a block's rows are: rows [first_row, …) of a sequence, row = node * group + head of the group.
struct RowTile {
  int sequence, first_row, rows, first_node;
};

/// The tile of this number; a sequence of -1 if there are fewer.
__device__ __forceinline__ RowTile find_tile(const AttentionKernel& k, int tile) {
  for (int s = 0; s < k.sequences; ++s) {
    const int first = load(k.first_node + s), rows = (load(k.first_node + s + 1) - first) * k.group;
    const int tiles = (rows + static_cast<int>(kQueryRows) - 1) / static_cast<int>(kQueryRows);
    if (tile < tiles) return {s, tile * static_cast<int>(kQueryRows), rows, first};
    tile -= tiles;
  }
  return {-1, 0, 0, 0};
}

/// A running softmax over positions (Milakov and Gimelshein, 2018), in base 2.
struct Running {
  float largest, total;
};

/// The factor that turns sums relative to `from` into sums relative to `to`; 0 where nothing was seen yet.
__device__ __forceinline__ float rescale(float from, float to) {
  return from == -infinity() ? 0.0f : power_of_2(from - to);
}

/// Grid: (tiles, key-value heads, splits). A warp takes every fourth 16 positions of its block's part,
/// straight from memory to the tensor cores' operands: which of a head's dimensions is which row of an
/// operand is free as long as both sides agree, so lane q of four takes dimensions 16 q … 16 q + 15 of each
/// 64 of queries and keys, and lane g of eight dimensions 8 g … 8 g + 7 of values: whole 16-byte loads, no
/// exchange, no shared memory.
template <class T, int D>
__global__ void __launch_bounds__(32 * kAttentionWarps) tree_attention_kernel(AttentionKernel k) {
  constexpr int kBlocks = D / 64;  // of 64 dimensions
  constexpr int kRows = static_cast<int>(kQueryRows);
  __shared__ Shared<float, kAttentionWarps * kRows * D> warp_sums;
  __shared__ Shared<float, kAttentionWarps * kRows> warp_largest;
  __shared__ Shared<float, kAttentionWarps * kRows> warp_total;
  __shared__ Shared<std::uint32_t, 1> flag;

  const RowTile tile = find_tile(k, static_cast<int>(blockIdx.x));
  if (tile.sequence < 0) return;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int g = lane / 4, q = lane % 4;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int prefix = load(k.prefix_length + tile.sequence);
  const int length = load(k.length + tile.sequence);
  const std::int32_t* pages =
      k.page_table + static_cast<std::size_t>(tile.sequence) * static_cast<unsigned>(k.max_pages);
  const auto slot = [&](int position) {
    const int page = load(pages + position / k.page_size);
    return static_cast<std::size_t>(page) * k.page_stride +
           static_cast<std::size_t>(position % k.page_size) * k.slot_stride +
           static_cast<std::size_t>(kv_head) * k.head_stride;
  };

  // Queries of rows g and g + 8: operand A of four steps of 16 dimensions for each 64.
  std::uint32_t query[kBlocks * 4][4];
  const std::uint32_t* mask[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = tile.first_row + g + 8 * h;
    const bool valid = row < tile.rows;
    const int node = tile.first_node + (valid ? row / k.group : 0);
    mask[h] = valid ? k.mask + static_cast<std::size_t>(node) * static_cast<unsigned>(k.mask_words) : nullptr;
    const T* from = static_cast<const T*>(k.queries) + static_cast<std::size_t>(node) * k.query_stride +
                    static_cast<std::size_t>(kv_head * k.group + (valid ? row % k.group : 0)) * D;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Words4 words =
            valid ? load(reinterpret_cast<const Words4*>(from + 64 * block + 16 * q + 8 * half)) : Words4{};
#pragma unroll
        for (int i = 0; i < 4; ++i) query[4 * block + 2 * half + i / 2][2 * (i % 2) + h] = words.w[i];
      }
    }
  }

  Running running[2] = {{-infinity(), 0}, {-infinity(), 0}};
  float sums[kBlocks * 8][4] = {};
  const int chunks = (length + kPositions - 1) / kPositions;
  const int per_split = (chunks + static_cast<int>(gridDim.z) - 1) / static_cast<int>(gridDim.z);
  const int begin = static_cast<int>(blockIdx.z) * per_split;
  const int end = begin + per_split < chunks ? begin + per_split : chunks;
  for (int chunk = begin + warp; chunk < end; chunk += kAttentionWarps) {
    const int first = chunk * kPositions;
    float scores[2][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int position = first + 8 * part + g;
      const bool valid = position < length;
      const T* from = static_cast<const T*>(k.keys) + (valid ? slot(position) : 0);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Words4 words =
              valid ? load(reinterpret_cast<const Words4*>(from + 64 * block + 16 * q + 8 * half)) : Words4{};
          multiply_16x8x16<T>(scores[part], query[4 * block + 2 * half], words.w[0], words.w[1]);
          multiply_16x8x16<T>(scores[part], query[4 * block + 2 * half + 1], words.w[2], words.w[3]);
        }
      }
    }
    // Values are on their way while the weights are made.
    Words4 value[kBlocks][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int position = first + 2 * q + i % 2 + i / 2 * 8;
      const bool valid = position < length;
      const T* from = static_cast<const T*>(k.values) + (valid ? slot(position) : 0);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        value[block][i] = valid ? load(reinterpret_cast<const Words4*>(from + 64 * block + 8 * g)) : Words4{};
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = running[h].largest;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = scores[i / 2][2 * h + i % 2];
        const int position = first + i / 2 * 8 + 2 * q + i % 2, behind = position - prefix;
        bool sees = mask[h] != nullptr && position < length;
        if (sees && behind >= 0) sees = (load(mask[h] + behind / 32) >> behind % 32 & 1) != 0;
        score = sees ? score * k.scale : -infinity();
        largest = score > largest ? score : largest;
      }
#pragma unroll
      for (int far = 1; far < 4; far *= 2) {
        const float other = shuffle_xor(largest, far);
        largest = other > largest ? other : largest;
      }
      const float factor = rescale(running[h].largest, largest);
      running[h].total *= factor;
      running[h].largest = largest;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = scores[i / 2][2 * h + i % 2];
        score = rescale(score, largest);
        running[h].total += score;
      }
#pragma unroll
      for (int t = 0; t < kBlocks * 8; ++t) {
        sums[t][2 * h] *= factor;
        sums[t][2 * h + 1] *= factor;
      }
    }
    const std::uint32_t weights[4] = {
        pack2<T>(scores[0][0], scores[0][1]), pack2<T>(scores[0][2], scores[0][3]),
        pack2<T>(scores[1][0], scores[1][1]), pack2<T>(scores[1][2], scores[1][3])};
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int t = 0; t < 8; ++t) {
        const std::uint32_t halves = t % 2 == 0 ? 0x5410 : 0x7632;
        multiply_16x8x16<T>(sums[8 * block + t], weights,
                            pick_bytes(value[block][0].w[t / 2], value[block][1].w[t / 2], halves),
                            pick_bytes(value[block][2].w[t / 2], value[block][3].w[t / 2], halves));
      }
    }
  }

  // The warps' states meet in shared memory.
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int far = 1; far < 4; far *= 2) running[h].total += shuffle_xor(running[h].total, far);
    const int row = warp * kRows + g + 8 * h;
    if (q == 0) {
      warp_largest.set(row, running[h].largest);
      warp_total.set(row, running[h].total);
    }
#pragma unroll
    for (int t = 0; t < kBlocks * 8; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        warp_sums.set(row * D + t / 8 * 64 + 8 * (2 * q + i) + t % 8, sums[t][2 * h + i]);
      }
    }
  }
  sync_block();

  // From here on a thread has one row, and every eighth dimension.
  constexpr int kThreadsPerRow = 32 * kAttentionWarps / kRows;
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerRow,
            column = static_cast<int>(threadIdx.x) % kThreadsPerRow;
  float largest = -infinity();
#pragma unroll
  for (int w = 0; w < kAttentionWarps; ++w) {
    const float other = warp_largest.get(w * kRows + row);
    largest = other > largest ? other : largest;
  }
  float total = 0, factors[kAttentionWarps], mine[D / kThreadsPerRow];
#pragma unroll
  for (int w = 0; w < kAttentionWarps; ++w) {
    factors[w] = rescale(warp_largest.get(w * kRows + row), largest);
    total += factors[w] * warp_total.get(w * kRows + row);
  }
#pragma unroll
  for (int i = 0; i < D / kThreadsPerRow; ++i) {
    mine[i] = 0;
#pragma unroll
    for (int w = 0; w < kAttentionWarps; ++w) {
      mine[i] = multiply_add(factors[w], warp_sums.get((w * kRows + row) * D + column + i * kThreadsPerRow),
                             mine[i]);
    }
  }
  if (gridDim.z > 1) {
    constexpr int kState = kRows * (D + 2);
    const std::size_t group = static_cast<std::size_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    float* partials = k.partials + group * gridDim.z * kState;
    float* part = partials + blockIdx.z * kState + row * (D + 2);
    if (column == 0) {
      store(part + D, largest);
      store(part + D + 1, total);
    }
#pragma unroll
    for (int i = 0; i < D / kThreadsPerRow; ++i) store(part + column + i * kThreadsPerRow, mine[i]);
    if (!is_last_part(k.counters + group, gridDim.z, flag)) return;
    largest = -infinity();
    for (unsigned z = 0; z < gridDim.z; ++z) {
      const float other = load_fresh(partials + z * kState + row * (D + 2) + D);
      largest = other > largest ? other : largest;
    }
    total = 0;
#pragma unroll
    for (int i = 0; i < D / kThreadsPerRow; ++i) mine[i] = 0;
    for (unsigned z = 0; z < gridDim.z; ++z) {
      const float* from = partials + z * kState + row * (D + 2);
      const float factor = rescale(load_fresh(from + D), largest);
      if (factor == 0) continue;
      total += factor * load_fresh(from + D + 1);
#pragma unroll
      for (int i = 0; i < D / kThreadsPerRow; ++i) {
        mine[i] = multiply_add(factor, load_fresh(from + column + i * kThreadsPerRow), mine[i]);
      }
    }
  }
  const int my_row = tile.first_row + row;
  if (my_row >= tile.rows) return;
  T* out = static_cast<T*>(k.out) +
           static_cast<std::size_t>(tile.first_node + my_row / k.group) * k.out_stride +
           static_cast<std::size_t>(kv_head * k.group + my_row % k.group) * D;
  const float inverse = total > 0 ? 1 / total : 0;
#pragma unroll
  for (int i = 0; i < D / kThreadsPerRow; ++i)
    store(out + column + i * kThreadsPerRow, from_float<T>(mine[i] * inverse));
}

}  // namespace bidtrie::cuda
