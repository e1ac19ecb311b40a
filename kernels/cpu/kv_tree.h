#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "bidtrie/tree_batch.h"

namespace bidtrie {

/// Where the nodes of a checked batch go and what they see.
struct StepPlan {
  std::vector<std::int32_t> handles;                    // [T]
  std::vector<std::int32_t> slots;                      // [T] KV slot of each node
  std::vector<std::int32_t> positions;                  // [T]
  std::vector<std::span<const std::int32_t>> prefixes;  // [T] slots of the sequence's committed prefix
  /// Node i's ancestors below the prefix and itself, in order: paths[path_offsets[i] … path_offsets[i + 1]),
  /// slots.
  std::vector<std::size_t> path_offsets;
  std::vector<std::int32_t> paths;

  std::span<const std::int32_t> path(std::size_t node) const {
    return {paths.data() + path_offsets[node], path_offsets[node + 1] - path_offsets[node]};
  }
};

/// Who owns which KV slot: sequences with their committed prefixes, and the trees of nodes that hang on them.
///
/// A slot holds one token's keys and values. It is free, or owned by one node, or part of the prefix of one
/// or more sequences; committing moves slots from nodes to a prefix, sharing copies a list of slots, and
/// neither touches what the slots hold. The rules are those of bidtrie.engine.base.Engine. Every call that
/// throws has changed nothing.
class KvTree {
 public:
  /// `first_id` is where handles and sequence numbers start.
  KvTree(std::size_t vocab_size, std::size_t context_length, std::size_t slots, std::size_t max_nodes,
         std::int32_t first_id = 0);

  /// A new sequence that shares the first `length` (default: all) tokens of `share`, or an empty one.
  std::int32_t open(std::optional<std::int32_t> share = {}, std::optional<std::int64_t> length = {});
  void close(std::int32_t sequence);
  std::size_t length(std::int32_t sequence) const { return prefix(sequence).size(); }
  std::size_t free_slots() const;
  void commit(std::int32_t sequence, std::span<const std::int32_t> nodes);
  void keep(std::span<const std::int32_t> nodes);
  void release(std::span<const std::int32_t> nodes);

  /// Throws unless the batch's arrays fit together and its rows and candidates exist.
  void check(const TreeBatch& batch) const;

  /// End the life of the last step's nodes and place those of a batch that has passed `check`. The plan
  /// refers to this object's prefixes: it is valid until the next call of anything that changes them.
  StepPlan step(const TreeBatch& batch);

 private:
  struct Node {
    std::int32_t handle;  // -1: its life has ended, but another node may need it as ancestor
    std::int32_t sequence;
    std::int32_t parent;  // index into nodes_, or -1: the prefix's end; smaller than the node's own index
    std::int32_t slot;
    std::int32_t position;
    bool kept;
  };

  const std::vector<std::int32_t>& prefix(std::int32_t sequence) const;
  std::int32_t find(std::int32_t handle) const;
  /// What becomes of each node when it is kept or an ancestor of one that is, and of the others.
  std::vector<std::int32_t> held() const;
  /// Carry out what `fates` says of each node; afterwards it holds each staying node's new index.
  void retain(std::vector<std::int32_t>& fates) noexcept;

  const std::size_t vocab_size_;
  const std::size_t context_length_;
  const std::size_t max_nodes_;
  std::int32_t next_sequence_;
  std::int32_t next_handle_;
  std::unordered_map<std::int32_t, std::vector<std::int32_t>> sequences_;  // slots of each prefix
  std::vector<Node> nodes_;
  std::unordered_map<std::int32_t, std::int32_t> by_handle_;  // index into nodes_
  std::vector<std::int32_t> shares_;                          // [slots] prefixes that a slot is part of
  std::vector<std::int32_t> free_;                            // stack of free slots
};

}  // namespace bidtrie
