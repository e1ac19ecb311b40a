#include "kv_tree.h"

#include <algorithm>
#include <limits>

#include "bidtrie/error.h"

namespace bidtrie {
namespace {

/// The largest handle whose kept_parent() is an int32.
constexpr std::int32_t kLastId = std::numeric_limits<std::int32_t>::max() - 1;

/// The first id from `id` on, wrapping at kLastId, that is not a key of `taken`.
template <class Map>
std::int32_t free_id(std::int32_t id, const Map& taken) {
  while (taken.contains(id)) id = id == kLastId ? 0 : id + 1;
  return id;
}

/// Fates of a node in `KvTree::retain`.
constexpr std::int32_t kDropped = 0;
constexpr std::int32_t kStays = 1;
/// The node goes, its slot joins its sequence's prefix.
constexpr std::int32_t kCommitted = 2;

constexpr std::size_t index(std::int32_t i) {
  return static_cast<std::size_t>(i);
}

constexpr std::int32_t next_id(std::int32_t id) {
  return id == kLastId ? 0 : id + 1;
}

}  // namespace

KvTree::KvTree(std::size_t vocab_size, std::size_t context_length, std::size_t slots, std::size_t max_nodes,
               std::int32_t first_id)
    : vocab_size_(vocab_size),
      context_length_(context_length),
      max_nodes_(max_nodes),
      next_sequence_(first_id),
      next_handle_(first_id),
      shares_(slots, 0),
      free_(slots) {
  // Low slots are taken first, so that a lightly used cache stays small.
  for (std::size_t i = 0; i < slots; ++i) free_[i] = static_cast<std::int32_t>(slots - 1 - i);
}

const std::vector<std::int32_t>& KvTree::prefix(std::int32_t sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) throw EngineError(message("sequence ", sequence, " is not open"));
  return found->second;
}

std::int32_t KvTree::find(std::int32_t handle) const {
  const auto found = by_handle_.find(handle);
  if (found == by_handle_.end()) throw EngineError(message("node ", handle, " is not alive"));
  return found->second;
}

std::int32_t KvTree::open(std::optional<std::int32_t> share, std::optional<std::int64_t> length) {
  std::vector<std::int32_t> slots;
  if (share) slots = prefix(*share);
  if (length) {
    if (*length < 0 || static_cast<std::uint64_t>(*length) > slots.size()) {
      throw EngineError(message("length: ", *length, ", expected 0 to ", slots.size()));
    }
    slots.resize(static_cast<std::size_t>(*length));
  }
  const std::int32_t id = free_id(next_sequence_, sequences_);
  const auto& stored = sequences_.emplace(id, std::move(slots)).first->second;
  for (const std::int32_t slot : stored) ++shares_[index(slot)];
  next_sequence_ = next_id(id);
  return id;
}

void KvTree::close(std::int32_t sequence) {
  const std::vector<std::int32_t>& slots = prefix(sequence);
  std::vector<std::int32_t> fates(nodes_.size());
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    fates[i] = nodes_[i].sequence != sequence ? kStays : kDropped;
  retain(fates);
  for (const std::int32_t slot : slots) {
    // The stack of free slots never grows beyond its first size, so it does not allocate.
    if (--shares_[index(slot)] == 0) free_.push_back(slot);
  }
  sequences_.erase(sequence);
}

std::vector<std::int32_t> KvTree::held() const {
  std::vector<std::int32_t> fates(nodes_.size(), kDropped);
  for (std::size_t i = nodes_.size(); i-- > 0;) {
    if (nodes_[i].kept) fates[i] = kStays;
    if (fates[i] == kStays && nodes_[i].parent >= 0) fates[index(nodes_[i].parent)] = kStays;
  }
  return fates;
}

std::size_t KvTree::free_slots() const {
  const std::vector<std::int32_t> fates = held();
  return free_.size() + static_cast<std::size_t>(std::count(fates.begin(), fates.end(), kDropped));
}

void KvTree::retain(std::vector<std::int32_t>& fates) noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (fates[i] != kStays) {
      if (node.handle >= 0) by_handle_.erase(node.handle);
      if (fates[i] == kDropped) free_.push_back(node.slot);
      fates[i] = kPrefixEnd;  // what a staying child hangs on when its parent is committed
      continue;
    }
    if (node.parent >= 0) node.parent = fates[index(node.parent)];
    if (node.handle >= 0) by_handle_.find(node.handle)->second = static_cast<std::int32_t>(count);
    fates[i] = static_cast<std::int32_t>(count);
    nodes_[count++] = node;
  }
  nodes_.resize(count);
}

void KvTree::commit(std::int32_t sequence, std::span<const std::int32_t> nodes) {
  prefix(sequence);
  if (nodes.empty()) return;
  std::int32_t last = kPrefixEnd;
  for (const std::int32_t handle : nodes) {
    const std::int32_t i = find(handle);
    const Node& node = nodes_[index(i)];
    if (node.sequence != sequence) {
      throw EngineError(
          message("node ", handle, " belongs to sequence ", node.sequence, ", expected ", sequence));
    }
    if (node.parent != last) {
      throw EngineError(message("node ", handle, " does not continue the path from the prefix's end"));
    }
    last = i;
  }
  std::vector<std::int32_t> fates(nodes_.size(), kDropped);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    const bool below = node.parent >= 0 && (node.parent == last || fates[index(node.parent)] == kStays);
    if (node.sequence != sequence || below) fates[i] = kStays;
  }
  std::vector<std::int32_t>& slots = sequences_.find(sequence)->second;
  if (slots.capacity() < slots.size() + nodes.size()) {
    slots.reserve(std::max(slots.size() + nodes.size(), 2 * slots.size()));
  }
  for (const std::int32_t handle : nodes) {
    const std::int32_t i = find(handle);
    fates[index(i)] = kCommitted;
    slots.push_back(nodes_[index(i)].slot);
    shares_[index(slots.back())] = 1;
  }
  retain(fates);
}

void KvTree::keep(std::span<const std::int32_t> nodes) {
  for (const std::int32_t handle : nodes) find(handle);
  for (const std::int32_t handle : nodes) nodes_[index(find(handle))].kept = true;
}

void KvTree::release(std::span<const std::int32_t> nodes) {
  for (const std::int32_t handle : nodes) {
    if (!nodes_[index(find(handle))].kept) throw EngineError(message("node ", handle, " is not kept"));
  }
  for (const std::int32_t handle : nodes) {
    const auto found = by_handle_.find(handle);
    if (found == by_handle_.end()) continue;  // named twice
    nodes_[index(found->second)].kept = false;
    nodes_[index(found->second)].handle = -1;
    by_handle_.erase(found);
  }
}

void KvTree::check(const TreeBatch& batch) const {
  const std::size_t count = batch.size(), rows = batch.rows();
  if (count > max_nodes_) throw EngineError(message(count, " nodes, expected at most ", max_nodes_));
  if (batch.sequence.size() != count || batch.parent.size() != count) {
    throw EngineError(message(count, " tokens, but ", batch.sequence.size(), " sequence and ",
                              batch.parent.size(), " parent entries"));
  }
  for (const std::int32_t node : batch.logits_for) {
    if (node < 0 || index(node) >= count) {
      throw EngineError(message("logits_for: node ", node, ", expected 0 to ", count, " - 1"));
    }
  }
  if (!batch.logsumexp.empty() && batch.logsumexp.size() != rows) {
    throw EngineError(message("logsumexp: ", batch.logsumexp.size(), " rows, expected ", rows));
  }
  if (batch.candidate_offsets.empty()) {
    if (!batch.candidate_ids.empty()) throw EngineError("candidates: ids without offsets");
  } else {
    const auto& offsets = batch.candidate_offsets;
    if (offsets.size() != rows + 1) {
      throw EngineError(message("candidates: ", offsets.size(), " offsets, expected ", rows + 1));
    }
    if (offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
        index(offsets.back()) != batch.candidate_ids.size()) {
      throw EngineError(
          message("candidates: offsets must rise from 0 to the number of ids, ", batch.candidate_ids.size()));
    }
    for (const std::int32_t id : batch.candidate_ids) {
      if (id < 0 || index(id) >= vocab_size_) {
        throw EngineError(message("candidates: token ", id, ", expected 0 to ", vocab_size_ - 1));
      }
    }
  }
}

StepPlan KvTree::step(const TreeBatch& batch) {
  const std::size_t count = batch.size();
  std::vector<Node> placed;
  placed.reserve(count);
  StepPlan plan;
  plan.prefixes.reserve(count);
  plan.positions.reserve(count);
  // A parent is an index into the batch (>= 0) here, or the prefix's end, or -2 - its index in nodes_.
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t token = batch.tokens[i], sequence = batch.sequence[i];
    std::int32_t parent = batch.parent[i];
    if (token < 0 || index(token) >= vocab_size_) {
      throw EngineError(message("node ", i, ": token ", token, ", expected 0 to ", vocab_size_ - 1));
    }
    const std::vector<std::int32_t>& slots = prefix(sequence);
    const Node* above = nullptr;
    if (parent >= 0) {
      if (index(parent) >= i)
        throw EngineError(message("node ", i, ": parent ", parent, ", expected an earlier node"));
      above = &placed[index(parent)];
    } else if (parent != kPrefixEnd) {
      const std::int32_t handle = -2 - parent, at = find(handle);
      above = &nodes_[index(at)];
      if (!above->kept) throw EngineError(message("node ", i, ": its parent ", handle, " was not kept"));
      parent = -2 - at;
    }
    if (above != nullptr && above->sequence != sequence) {
      throw EngineError(
          message("node ", i, ": its parent belongs to sequence ", above->sequence, ", expected ", sequence));
    }
    const std::size_t position = above != nullptr ? index(above->position) + 1 : slots.size();
    if (position >= context_length_) {
      throw EngineError(message("node ", i, ": longer than the context of ", context_length_, " tokens"));
    }
    placed.push_back({-1, sequence, parent, -1, static_cast<std::int32_t>(position), false});
    plan.prefixes.emplace_back(slots);
    plan.positions.push_back(static_cast<std::int32_t>(position));
  }

  std::vector<std::int32_t> fates = held();
  const std::size_t available =
      free_.size() + static_cast<std::size_t>(std::count(fates.begin(), fates.end(), kDropped));
  if (count > available) {
    throw OutOfSlots(message(count, " nodes, but ", available, " KV slots are free"));
  }

  // Everything that allocates, then what cannot fail.
  plan.handles.reserve(count);
  plan.slots.resize(count);
  plan.path_offsets.resize(count + 1, 0);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t depth = index(placed[i].position) - plan.prefixes[i].size() + 1;
    plan.path_offsets[i + 1] = plan.path_offsets[i] + depth;
  }
  plan.paths.resize(plan.path_offsets[count]);
  nodes_.reserve(nodes_.size() + count);
  std::int32_t next_handle = next_handle_;
  try {
    for (std::size_t i = 0; i < count; ++i) {
      const std::int32_t handle = free_id(next_handle, by_handle_);
      by_handle_.emplace(handle, -1);
      plan.handles.push_back(handle);
      next_handle = next_id(handle);
    }
  } catch (...) {
    for (const std::int32_t handle : plan.handles) by_handle_.erase(handle);
    throw;
  }

  next_handle_ = next_handle;
  for (Node& node : nodes_) {
    // Also the ancestors that stay because a kept node needs them can no longer be named.
    if (!node.kept && node.handle >= 0) {
      by_handle_.erase(node.handle);
      node.handle = -1;
    }
  }
  retain(fates);
  const std::size_t first = nodes_.size();
  for (std::size_t i = 0; i < count; ++i) {
    Node node = placed[i];
    node.handle = plan.handles[i];
    node.slot = plan.slots[i] = free_.back();
    free_.pop_back();
    if (node.parent >= 0) {
      node.parent += static_cast<std::int32_t>(first);
    } else if (node.parent != kPrefixEnd) {
      node.parent = fates[index(-2 - node.parent)];
    }
    by_handle_.find(node.handle)->second = static_cast<std::int32_t>(first + i);
    nodes_.push_back(node);
    std::int32_t above = static_cast<std::int32_t>(first + i);
    for (std::size_t at = plan.path_offsets[i + 1]; at-- > plan.path_offsets[i];) {
      plan.paths[at] = nodes_[index(above)].slot;
      above = nodes_[index(above)].parent;
    }
  }
  return plan;
}

}  // namespace bidtrie
