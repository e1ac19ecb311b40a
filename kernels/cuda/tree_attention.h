#pragma once

#include <cstddef>
#include <cstdint>

#include "bidtrie/weights.h"
#include "device.cuh"
#include "linear.h"

// Attention of tree nodes over a paged KV cache. A node sees its sequence's prefix, and of the positions
// behind it those whose bits are set in its mask: its ancestors and itself. A chain is a tree, so prompts and
// plain decoding are the same call. Ancestors may be of earlier calls: what lies behind a prefix need not be
// the call's nodes. With pages of one slot a page table is a list of slots, and trees may lie anywhere.

namespace bidtrie::cuda {

/// All pointers are the device's; sizes that change from step to step are read there, so that a captured
/// graph stays valid: `max_nodes` and `sequences` only bound them.
struct TreeAttention {
  Float type;
  std::size_t head_size;  // 64 or 128
  std::size_t heads, kv_heads;
  std::size_t sequences;
  std::size_t max_nodes;  // of all sequences together

  const void* queries;       // [nodes, heads, head_size]
  std::size_t query_stride;  // elements from node to node, a multiple of 8
  void* out;                 // [nodes, heads, head_size]
  std::size_t out_stride;

  const void*
      keys;  // page p, slot i, head h: at p * page_stride + i * slot_stride + h * head_stride, multiples of 8
  const void* values;
  std::size_t page_stride, slot_stride, head_stride;  // elements
  std::size_t page_size;                              // slots
  const std::int32_t* page_table;                     // [sequences, max_pages]
  std::size_t max_pages;

  const std::int32_t* first_node;     // [sequences + 1]: nodes of sequence s, in order
  const std::int32_t* prefix_length;  // [sequences]
  const std::int32_t* length;         // [sequences]: positions, the prefix' and those behind it
  const std::uint32_t* mask;          // [nodes, mask_words]: bit i: sees position prefix_length + i
  std::size_t mask_words;
  float scale;

  int splits;       // attention_splits(…)
  void* workspace;  // attention_workspace_bytes(…), zeros before its first use; one launch at a time uses it
};

/// Rows (nodes times heads of a group) that a block takes.
inline constexpr std::size_t kQueryRows = 16;
inline constexpr int kAttentionWarps = 4;
/// Positions that a warp takes at once.
inline constexpr int kPositions = 16;

/// Blocks of 16 rows that so many nodes and sequences can need at most.
constexpr std::size_t attention_tiles(std::size_t max_nodes, std::size_t sequences, std::size_t group) {
  return ceil_div(max_nodes * group, kQueryRows) + sequences - 1;
}

/// Into how many parts positions are cut so that `multiprocessors` have work.
constexpr int attention_splits(std::size_t max_nodes, std::size_t sequences, std::size_t heads,
                               std::size_t kv_heads, std::size_t max_length, int multiprocessors) {
  const std::size_t blocks = attention_tiles(max_nodes, sequences, heads / kv_heads) * kv_heads;
  const std::size_t most = ceil_div(max_length, 2 * kPositions * kAttentionWarps);
  std::size_t splits = ceil_div(2 * static_cast<std::size_t>(multiprocessors), blocks);
  if (splits > most) splits = most;
  return static_cast<int>(splits < 1 ? 1 : splits);
}

constexpr std::size_t attention_workspace_bytes(std::size_t max_nodes, std::size_t sequences,
                                                std::size_t heads, std::size_t kv_heads,
                                                std::size_t head_size, int splits) {
  if (splits == 1) return 0;
  const std::size_t blocks = attention_tiles(max_nodes, sequences, heads / kv_heads) * kv_heads;
  return round_up(blocks * 4, 16) +
         blocks * static_cast<std::size_t>(splits) * kQueryRows * (head_size + 2) * 4;
}

cudaError_t tree_attention(const TreeAttention& arguments, cudaStream_t stream);

}  // namespace bidtrie::cuda
