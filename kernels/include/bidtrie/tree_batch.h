#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace bidtrie {

/// `parent` of a node that hangs on the end of its sequence's committed prefix.
inline constexpr std::int32_t kPrefixEnd = -1;

/// The `parent` entry that names a node kept from an earlier step by its handle.
constexpr std::int32_t kept_parent(std::int32_t handle) {
  return -2 - handle;
}

/// Nodes to compute in one step. A node sees its sequence's prefix and its own ancestors; its position is the
/// prefix's length plus its depth.
struct TreeBatch {
  std::span<const std::int32_t> tokens;    // [T]
  std::span<const std::int32_t> sequence;  // [T] whose prefix the node hangs on
  std::span<const std::int32_t>
      parent;  // [T] smaller index into the batch, kPrefixEnd, or kept_parent(handle)
  std::span<const std::int32_t> logits_for;  // [R] nodes whose next-token logits are wanted

  /// Row r wants candidate_ids[candidate_offsets[r] … candidate_offsets[r + 1]); an empty row, or no offsets
  /// at all, the whole vocabulary.
  std::span<const std::int32_t> candidate_offsets;  // [R + 1] or empty
  std::span<const std::int32_t> candidate_ids;
  /// Rows that want the log-sum-exp over the full vocabulary.
  std::span<const std::uint8_t> logsumexp;  // [R], 0 or not, or empty: none

  std::size_t size() const { return tokens.size(); }
  std::size_t rows() const { return logits_for.size(); }
};

/// What a step returns.
struct StepOutput {
  std::vector<std::int32_t> nodes;    // [T] a handle for each node
  std::vector<std::int64_t> offsets;  // [R + 1] row r is logits[offsets[r] … offsets[r + 1])
  std::unique_ptr<float[]> logits;    // [offsets[R]]
  std::vector<float> logsumexp;       // [R] natural log; NaN where not asked for
};

}  // namespace bidtrie
