#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels.h"
#include "kv_tree.h"
#include "thread_team.h"

namespace bidtrie {

/// What the nodes of a step see: the prefix of their group, then their own path, both as KV slots in order.
struct TreeView {
  std::span<const std::int32_t> group;           // [T] whose prefix node i sees
  std::span<const std::int32_t> prefix_offsets;  // [G + 1]
  std::span<const std::int32_t> prefix_slots;
  std::span<const std::int32_t> path_offsets;  // [T + 1]
  std::span<const std::int32_t> path_slots;    // ancestors below the prefix, and the node itself
};

/// A step plan as flat arrays that can leave the process: what TreeView looks at.
struct FlatPlan {
  std::vector<std::int32_t> group, prefix_offsets, prefix_slots, path_offsets, path_slots;
};

/// `sequence` is the batch's: nodes of one sequence make a group, in order of first appearance.
FlatPlan flatten(const StepPlan& plan, std::span<const std::int32_t> sequence);

/// Heads of a step's queries, and the cache that they look at: float32, keys and values
/// [slots, kv_heads, head_dim], head_dim a multiple of 16, kv_heads a divisor of heads.
struct TreeHeads {
  const float* queries;  // [T, heads, head_dim]
  const float* keys;
  const float* values;
  std::size_t heads, kv_heads, head_dim, slots;
};

/// out [T, heads, head_dim] = softmax(scale * query · keys) · values over what each node sees. A node's bits
/// depend on what it sees alone. Throws EngineError where the arrays do not fit together.
void tree_attention(const Kernels& kernels, ThreadTeam& team, const TreeHeads& heads, const TreeView& view,
                    float scale, float* out);

}  // namespace bidtrie
