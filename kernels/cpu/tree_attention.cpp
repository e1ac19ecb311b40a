#include "tree_attention.h"

#include <algorithm>
#include <limits>
#include <map>

#include "activations.h"
#include "bidtrie/error.h"
#include "buffer.h"

namespace bidtrie {
namespace {

constexpr std::size_t at(std::int32_t i) {
  return static_cast<std::size_t>(i);
}

void check_offsets(const char* name, std::span<const std::int32_t> offsets, std::size_t size) {
  if (offsets.empty() || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      at(offsets.back()) != size) {
    throw EngineError(message(name, ": expected offsets that rise from 0 to ", size));
  }
}

void check_slots(const char* name, std::span<const std::int32_t> slots, std::size_t count) {
  for (const std::int32_t slot : slots) {
    if (slot < 0 || at(slot) >= count)
      throw EngineError(message(name, ": slot ", slot, ", expected 0 to ", count, " - 1"));
  }
}

void check(const TreeHeads& heads, const TreeView& view) {
  if (heads.head_dim == 0 || heads.head_dim % 16 != 0) {
    throw EngineError(message("head_dim: ", heads.head_dim, ", expected a multiple of 16"));
  }
  if (heads.kv_heads == 0 || heads.heads % heads.kv_heads != 0) {
    throw EngineError(message("heads: ", heads.heads, ", expected a multiple of ", heads.kv_heads));
  }
  check_offsets("prefix_offsets", view.prefix_offsets, view.prefix_slots.size());
  check_offsets("path_offsets", view.path_offsets, view.path_slots.size());
  if (view.path_offsets.size() != view.group.size() + 1) {
    throw EngineError(
        message("path_offsets: ", view.path_offsets.size(), " entries, expected ", view.group.size() + 1));
  }
  for (std::size_t i = 0; i < view.group.size(); ++i) {
    if (view.group[i] < 0 || at(view.group[i]) + 1 >= view.prefix_offsets.size()) {
      throw EngineError(
          message("group: ", view.group[i], ", expected 0 to ", view.prefix_offsets.size() - 2));
    }
    if (view.path_offsets[i] == view.path_offsets[i + 1]) {
      throw EngineError(message("path_offsets: node ", i, " does not see itself"));
    }
  }
  check_slots("prefix_slots", view.prefix_slots, heads.slots);
  check_slots("path_slots", view.path_slots, heads.slots);
}

/// Nodes of one group that follow each other, few enough to fetch what they share once.
struct Panel {
  std::size_t first, count;
};

std::vector<Panel> panels_of(std::span<const std::int32_t> group) {
  std::vector<Panel> panels;
  for (std::size_t i = 0; i < group.size(); ++i) {
    if (!panels.empty() && panels.back().count < kPanel && group[panels.back().first] == group[i]) {
      ++panels.back().count;
    } else {
      panels.push_back({i, 1});
    }
  }
  return panels;
}

struct Scratch {
  Buffer<float> rows, queries, sums;
  std::vector<AttentionState> states;
  std::vector<std::int32_t> slots;
};

}  // namespace

FlatPlan flatten(const StepPlan& plan, std::span<const std::int32_t> sequence) {
  FlatPlan flat;
  flat.prefix_offsets.push_back(0);
  std::map<std::int32_t, std::int32_t> groups;
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    const auto [found, added] = groups.try_emplace(sequence[i], static_cast<std::int32_t>(groups.size()));
    flat.group.push_back(found->second);
    if (!added) continue;
    flat.prefix_slots.insert(flat.prefix_slots.end(), plan.prefixes[i].begin(), plan.prefixes[i].end());
    flat.prefix_offsets.push_back(static_cast<std::int32_t>(flat.prefix_slots.size()));
  }
  flat.path_slots = plan.paths;
  for (const std::size_t offset : plan.path_offsets)
    flat.path_offsets.push_back(static_cast<std::int32_t>(offset));
  return flat;
}

void tree_attention(const Kernels& kernels, ThreadTeam& team, const TreeHeads& heads, const TreeView& view,
                    float scale, float* out) {
  check(heads, view);
  const std::size_t dim = heads.head_dim, shared_by = heads.heads / heads.kv_heads;
  const std::vector<Panel> panels = panels_of(view.group);
  std::size_t longest = 0;
  for (std::size_t i = 0; i < view.group.size(); ++i) {
    const std::size_t group = at(view.group[i]);
    longest = std::max(longest, at(view.prefix_offsets[group + 1] - view.prefix_offsets[group]) +
                                    at(view.path_offsets[i + 1] - view.path_offsets[i]));
  }
  std::vector<Scratch> scratch;
  for (int i = 0; i < team.size(); ++i) {
    const std::size_t queries = kPanel * shared_by;
    scratch.push_back({Buffer<float>(2 * kAttentionBlock * dim), Buffer<float>(queries * dim),
                       Buffer<float>(queries * dim), std::vector<AttentionState>(queries),
                       std::vector<std::int32_t>(longest)});
  }
  auto work = [&](int thread) noexcept {
    Scratch& mine = scratch[static_cast<std::size_t>(thread)];
    const auto all = static_cast<std::size_t>(team.size());
    // Dealt out in turn, since later nodes of a chain have more to read.
    for (std::size_t item = static_cast<std::size_t>(thread); item < panels.size() * heads.kv_heads;
         item += all) {
      const Panel panel = panels[item / heads.kv_heads];
      const std::size_t kv_head = item % heads.kv_heads, group = at(view.group[panel.first]);
      for (std::size_t i = 0; i < panel.count * shared_by; ++i) {
        const std::size_t node = panel.first + i / shared_by, head = kv_head * shared_by + i % shared_by;
        const float* query = heads.queries + (node * heads.heads + head) * dim;
        for (std::size_t d = 0; d < dim; ++d) mine.queries[i * dim + d] = query[d] * scale;
      }
      const auto prefix = view.prefix_slots.subspan(
          at(view.prefix_offsets[group]), at(view.prefix_offsets[group + 1] - view.prefix_offsets[group]));
      std::copy(prefix.begin(), prefix.end(), mine.slots.begin());
      // Whole blocks of the prefix are fetched once for all nodes of the panel.
      const std::size_t shared = prefix.size() - prefix.size() % kAttentionBlock;
      const auto attend = [&](std::size_t i, std::size_t queries, std::size_t begin, std::size_t end) {
        const AttentionContext context = {heads.keys + kv_head * dim, heads.values + kv_head * dim,
                                          heads.kv_heads * dim, mine.slots.data(), end};
        kernels.attend(mine.queries.data() + i * shared_by * dim, queries, context, begin, end, false, dim,
                       mine.rows.data(), mine.states.data() + i * shared_by,
                       mine.sums.data() + i * shared_by * dim);
      };
      attend(0, panel.count * shared_by, 0, shared);
      for (std::size_t i = 0; i < panel.count; ++i) {
        const std::size_t node = panel.first + i;
        const auto path = view.path_slots.subspan(at(view.path_offsets[node]),
                                                  at(view.path_offsets[node + 1] - view.path_offsets[node]));
        std::copy(path.begin(), path.end(), mine.slots.begin() + static_cast<std::ptrdiff_t>(prefix.size()));
        attend(i, shared_by, shared, prefix.size() + path.size());
        for (std::size_t h = 0; h < shared_by; ++h) {
          const float factor = 1.0f / mine.states[i * shared_by + h].total;
          const float* sums = mine.sums.data() + (i * shared_by + h) * dim;
          float* to = out + (node * heads.heads + kv_head * shared_by + h) * dim;
          for (std::size_t d = 0; d < dim; ++d) to[d] = sums[d] * factor;
        }
      }
    }
  };
  team.run(work);
}

}  // namespace bidtrie
