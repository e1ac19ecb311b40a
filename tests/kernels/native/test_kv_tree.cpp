// The KV cache's bookkeeping under random operations, valid and not, against a plain model of the rules:
// every node of a plan must find in its slots exactly what its prefix and its ancestors wrote there.

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <type_traits>
#include <vector>

#include "bidtrie/error.h"
#include "check.h"
#include "kv_tree.h"

namespace {

using bidtrie::EngineError;
using bidtrie::KvTree;
using bidtrie::OutOfSlots;
using bidtrie::StepPlan;
using bidtrie::TreeBatch;

constexpr std::size_t kVocabulary = 50, kContext = 24, kSlots = 30, kMaxNodes = 12;

struct Node {
  int sequence;
  std::shared_ptr<Node> parent;  // none: the prefix's end
  int serial;
  bool kept = false;

  std::vector<int> chain() const {
    std::vector<int> serials = parent ? parent->chain() : std::vector<int>();
    serials.push_back(serial);
    return serials;
  }
  bool is_below(const Node* other) const {
    return parent && (parent.get() == other || parent->is_below(other));
  }
};

struct Rules {
  std::map<int, std::vector<int>> prefixes;  // serials
  std::map<int, std::shared_ptr<Node>> nodes;

  std::size_t free_slots() const {
    std::set<int> used;
    for (const auto& [sequence, prefix] : prefixes) used.insert(prefix.begin(), prefix.end());
    for (const auto& [handle, node] : nodes) {
      if (!node->kept) continue;
      for (const int serial : node->chain()) used.insert(serial);
    }
    return kSlots - used.size();
  }
};

class Play {
 public:
  explicit Play(unsigned seed, std::int32_t first_id)
      : random_(seed), tree_(kVocabulary, kContext, kSlots, kMaxNodes, first_id), contents_(kSlots, -1) {}

  void run(int operations) {
    for (int i = 0; i < operations; ++i) {
      switch (below(8)) {
        case 0:
          open();
          break;
        case 1:
          below(4) ? step() : close();
          break;
        case 2:
          keep();
          break;
        case 3:
          release();
          break;
        case 4:
          commit();
          break;
        default:
          step();
          break;
      }
      CHECK(tree_.free_slots() == rules_.free_slots());
      for (const auto& [sequence, prefix] : rules_.prefixes) CHECK(tree_.length(sequence) == prefix.size());
    }
  }

  int steps = 0, commits = 0, refused = 0, out_of_slots = 0;

 private:
  int below(std::size_t n) { return static_cast<int>(random_() % n); }

  template <class Map>
  int any_key(const Map& map) {
    if (map.empty() || below(40) == 0) return below(1000) - 500;
    if constexpr (std::is_same_v<Map, decltype(rules_.nodes)>) {
      // A node that may have died lately.
      if (below(20) == 0 && !lately_.empty()) return lately_[static_cast<std::size_t>(below(lately_.size()))];
    }
    return std::next(map.begin(), below(map.size()))->first;
  }

  /// Run `call`, which must be refused if and only if `expected` is false; returns whether it went through.
  template <class Call>
  bool attempt(bool expected, Call call) {
    try {
      call();
    } catch (const OutOfSlots&) {
      throw;
    } catch (const EngineError&) {
      CHECK(!expected);
      ++refused;
      return false;
    }
    CHECK(expected);
    return true;
  }

  void open() {
    if (rules_.prefixes.size() > 6) return close();
    if (below(2)) {
      const std::int32_t id = tree_.open();
      CHECK(!rules_.prefixes.contains(id));
      rules_.prefixes[id];
      return;
    }
    const int share = any_key(rules_.prefixes);
    const auto found = rules_.prefixes.find(share);
    const std::size_t size = found == rules_.prefixes.end() ? 0 : found->second.size();
    std::optional<std::int64_t> length;
    if (below(2)) length = below(size + 3) - 1;
    const bool valid =
        found != rules_.prefixes.end() && (!length || (*length >= 0 && *length <= static_cast<int>(size)));
    std::int32_t id = -1;
    if (!attempt(valid, [&] { id = tree_.open(share, length); })) return;
    std::vector<int> prefix = rules_.prefixes[share];
    if (length) prefix.resize(static_cast<std::size_t>(*length));
    CHECK(!rules_.prefixes.contains(id));
    rules_.prefixes[id] = prefix;
  }

  void close() {
    const int sequence = any_key(rules_.prefixes);
    if (!attempt(rules_.prefixes.contains(sequence), [&] { tree_.close(sequence); })) return;
    rules_.prefixes.erase(sequence);
    std::erase_if(rules_.nodes, [&](const auto& entry) { return entry.second->sequence == sequence; });
  }

  std::vector<std::int32_t> some_handles() {
    std::vector<std::int32_t> handles;
    for (int i = below(2) ? 0 : below(4); i >= 0; --i) handles.push_back(any_key(rules_.nodes));
    return handles;
  }

  void keep() {
    const auto handles = some_handles();
    const bool valid =
        std::all_of(handles.begin(), handles.end(), [&](int h) { return rules_.nodes.contains(h); });
    if (!attempt(valid, [&] { tree_.keep(handles); })) return;
    for (const int handle : handles) rules_.nodes[handle]->kept = true;
  }

  void release() {
    const auto handles = some_handles();
    const bool valid = std::all_of(handles.begin(), handles.end(), [&](int h) {
      const auto found = rules_.nodes.find(h);
      return found != rules_.nodes.end() && found->second->kept;
    });
    if (!attempt(valid, [&] { tree_.release(handles); })) return;
    for (const int handle : handles) {
      const auto found = rules_.nodes.find(handle);
      if (found == rules_.nodes.end()) continue;
      found->second->kept = false;
      rules_.nodes.erase(found);
    }
  }

  void commit() {
    // Mostly a real path: from some node up to the prefix, as far as handles are alive.
    const int sequence = any_key(rules_.prefixes);
    std::vector<std::int32_t> path;
    if (below(4) == 0) {
      path = some_handles();
    } else {
      std::vector<int> mine;
      for (const auto& [handle, node] : rules_.nodes) {
        if (node->sequence == sequence) mine.push_back(handle);
      }
      if (mine.empty()) return;
      const Node* node = rules_.nodes[mine[static_cast<std::size_t>(below(mine.size()))]].get();
      for (; node; node = node->parent.get()) {
        for (const auto& [handle, other] : rules_.nodes) {
          if (other.get() == node) path.insert(path.begin(), handle);
        }
      }
    }
    bool valid = rules_.prefixes.contains(sequence);
    const Node* above = nullptr;
    for (const int handle : path) {
      const auto found = rules_.nodes.find(handle);
      valid = valid && found != rules_.nodes.end() && found->second->sequence == sequence &&
              found->second->parent.get() == above;
      if (!valid) break;
      above = found->second.get();
    }
    if (!attempt(valid, [&] { tree_.commit(sequence, path); })) return;
    ++commits;
    const std::shared_ptr<Node> last = rules_.nodes[path.back()];
    for (const int handle : path) rules_.prefixes[sequence].push_back(rules_.nodes[handle]->serial);
    std::erase_if(rules_.nodes, [&](const auto& entry) {
      return entry.second->sequence == sequence && !entry.second->is_below(last.get());
    });
    std::set<std::shared_ptr<Node>> detached;
    for (const auto& [handle, node] : rules_.nodes) {
      std::shared_ptr<Node> top = node;
      while (top->parent && top->parent != last) top = top->parent;
      if (top->parent == last) detached.insert(top);
    }
    for (const auto& node : detached) node->parent = nullptr;
  }

  void step() {
    const auto count = static_cast<std::size_t>(below(kMaxNodes + 2));
    std::vector<std::int32_t> tokens, sequences, parents;
    std::vector<std::shared_ptr<Node>> placed;
    bool valid = count <= kMaxNodes;
    for (std::size_t i = 0; i < count; ++i) {
      int sequence = any_key(rules_.prefixes), parent = bidtrie::kPrefixEnd;
      std::shared_ptr<Node> above;
      const int choice = below(3);
      if (choice == 0 && i > 0) {
        parent = below(i);
        above = placed[static_cast<std::size_t>(parent)];
        if (below(40)) sequence = above->sequence;
        if (below(60) == 0) parent = static_cast<int>(i), valid = false;
      } else if (choice == 1 && !rules_.nodes.empty()) {
        const int handle = any_key(rules_.nodes);
        const bool is_kept = rules_.nodes.contains(handle) && rules_.nodes[handle]->kept;
        if (handle >= 0 && (is_kept || below(20) == 0)) {
          parent = bidtrie::kept_parent(handle);
          const auto found = rules_.nodes.find(handle);
          if (found == rules_.nodes.end() || !found->second->kept) {
            valid = false;
          } else {
            above = found->second;
            if (below(40)) sequence = above->sequence;
          }
        }
      }
      const int token = below(60) == 0 ? static_cast<int>(kVocabulary) : below(kVocabulary);
      valid = valid && token < static_cast<int>(kVocabulary) && rules_.prefixes.contains(sequence) &&
              (!above || above->sequence == sequence);
      placed.push_back(std::make_shared<Node>(sequence, above, next_serial_++));
      if (valid) valid = rules_.prefixes[sequence].size() + placed.back()->chain().size() <= kContext;
      tokens.push_back(token);
      sequences.push_back(sequence);
      parents.push_back(parent);
    }
    const TreeBatch batch{tokens, sequences, parents, {}, {}, {}, {}};
    StepPlan plan;
    try {
      if (!attempt(valid, [&] {
            tree_.check(batch);
            plan = tree_.step(batch);
          })) {
        return;
      }
    } catch (const OutOfSlots&) {
      CHECK(valid && count > rules_.free_slots());
      ++out_of_slots;
      return;
    }
    ++steps;
    CHECK(count <= rules_.free_slots());
    std::erase_if(rules_.nodes, [](const auto& entry) { return !entry.second->kept; });
    for (std::size_t i = 0; i < count; ++i)
      contents_[static_cast<std::size_t>(plan.slots[i])] = placed[i]->serial;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<int> expected = rules_.prefixes[placed[i]->sequence], seen;
      for (const int serial : placed[i]->chain()) expected.push_back(serial);
      for (const std::int32_t slot : plan.prefixes[i])
        seen.push_back(contents_[static_cast<std::size_t>(slot)]);
      for (const std::int32_t slot : plan.path(i)) seen.push_back(contents_[static_cast<std::size_t>(slot)]);
      CHECK(seen == expected);
      CHECK(plan.positions[i] + 1 == static_cast<int>(expected.size()));
      CHECK(!rules_.nodes.contains(plan.handles[i]) && plan.handles[i] >= 0);
      CHECK(bidtrie::kept_parent(plan.handles[i]) < bidtrie::kPrefixEnd);
      rules_.nodes[plan.handles[i]] = placed[i];
      lately_.push_back(plan.handles[i]);
    }
    if (lately_.size() > 30) lately_.erase(lately_.begin(), lately_.end() - 30);
  }

  std::mt19937 random_;
  KvTree tree_;
  Rules rules_;
  std::vector<int> contents_;         // serial of the node that wrote each slot last
  std::vector<std::int32_t> lately_;  // handles of the last steps
  int next_serial_ = 0;
};

void check_messages() {
  KvTree tree(kVocabulary, kContext, kSlots, kMaxNodes);
  const std::int32_t sequence = tree.open();
  const std::vector<std::int32_t> token{1}, two{1, 2}, one_sequence{sequence}, end{bidtrie::kPrefixEnd},
      itself{0};
  const std::vector<std::int32_t> rows{0}, bad_row{1}, unknown{7};
  const auto batch = [&](const auto& tokens, const auto& parents) {
    return TreeBatch{tokens, one_sequence, parents, {}, {}, {}, {}};
  };
  CHECK_THROWS(EngineError, "2 tokens", tree.check(batch(two, end)));
  CHECK_THROWS(EngineError, "an earlier node", tree.step(batch(token, itself)));
  TreeBatch wanted = batch(token, end);
  wanted.logits_for = bad_row;
  CHECK_THROWS(EngineError, "logits_for", tree.check(wanted));
  wanted.logits_for = rows;
  const std::vector<std::int32_t> offsets{0, 1}, short_offsets{0}, falling{1, 0}, outside{50};
  wanted.candidate_ids = outside;
  CHECK_THROWS(EngineError, "ids without offsets", tree.check(wanted));
  wanted.candidate_offsets = short_offsets;
  CHECK_THROWS(EngineError, "expected 2", tree.check(wanted));
  wanted.candidate_offsets = falling;
  CHECK_THROWS(EngineError, "rise from 0", tree.check(wanted));
  wanted.candidate_offsets = offsets;
  CHECK_THROWS(EngineError, "token 50, expected 0 to 49", tree.check(wanted));
  wanted.candidate_ids = token;
  tree.check(wanted);
  CHECK_THROWS(EngineError, "sequence 7 is not open", tree.commit(7, {}));
  CHECK_THROWS(EngineError, "node 7 is not alive", tree.keep(unknown));
  CHECK_THROWS(EngineError, "node 7 is not alive", tree.release(unknown));
}

}  // namespace

int main() {
  check_messages();
  int steps = 0, commits = 0, refused = 0, out_of_slots = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    // Half of the games start just before ids wrap around.
    Play play(seed, seed % 2 ? std::numeric_limits<std::int32_t>::max() - 40 : 0);
    play.run(600);
    steps += play.steps, commits += play.commits, refused += play.refused, out_of_slots += play.out_of_slots;
  }
  // The games must have reached what they are about.
  CHECK(steps > 1000 && commits > 100 && refused > 1000 && out_of_slots > 10);
}
