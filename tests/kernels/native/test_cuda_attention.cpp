// The GPU's tree attention in the emulator against float64: heads in groups, pages from one slot on, prefixes
// from empty to long, trees from a chain to a star, with ancestors of earlier steps, parts, bounds that are
// larger than the step.

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/tree_attention.h"
#include "emulator/launch.h"

namespace {

using namespace bidtrie;
using cuda::Bfloat16, cuda::Float16;
using emulator::Buffer;

std::mt19937 random_source(21);

struct Heads {
  std::size_t heads, kv_heads, size;
};

/// A step: sequences with a prefix and a tree each.
struct Step {
  std::vector<int> prefix;
  std::vector<std::vector<int>> parents;  // of each sequence's positions behind it; -1: the prefix' end
  std::size_t kept = 0;                   // of these, the first so many are of earlier steps
};

using MakeTree = std::function<int(int node)>;

Step step(const std::vector<int>& prefix, const std::vector<int>& nodes, const MakeTree& parent,
          std::size_t kept = 0) {
  Step made{prefix, {}, kept};
  for (const int count : nodes) {
    std::vector<int> parents(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) parents[static_cast<std::size_t>(i)] = i == 0 ? -1 : parent(i);
    made.parents.push_back(std::move(parents));
  }
  return made;
}

/// What is wrong on purpose.
enum class Fault { kNone, kSeesSiblings, kWrongPage };

/// The largest error as a part of its bound.
template <class T>
double error_of_bound(const Heads& h, const Step& s, std::size_t page_size, int splits,
                      std::size_t spare_nodes, Fault fault = Fault::kNone) {
  const std::size_t sequences = s.prefix.size(), group = h.heads / h.kv_heads;
  std::vector<std::int32_t> first_node = {0}, prefix_length, length;
  std::size_t most_behind = 0, most_pages = 0, page_count = 2;
  std::vector<std::size_t> lengths;
  for (std::size_t q = 0; q < sequences; ++q) {
    const std::size_t behind = s.parents[q].size();
    first_node.push_back(first_node.back() + static_cast<std::int32_t>(behind - s.kept));
    prefix_length.push_back(s.prefix[q]);
    lengths.push_back(static_cast<std::size_t>(s.prefix[q]) + behind);
    length.push_back(static_cast<std::int32_t>(lengths[q]));
    most_behind = std::max(most_behind, behind);
    most_pages = std::max(most_pages, ceil_div(lengths[q], page_size));
    page_count += ceil_div(lengths[q], page_size);
  }
  const auto total = static_cast<std::size_t>(first_node.back());

  std::normal_distribution<float> normal;
  const auto draw = [&](std::size_t count, float spread) {
    std::vector<T> values(count);
    for (T& value : values) value = cuda::from_float<T>(spread * normal(random_source));
    return values;
  };
  // Pages in any order; slots of pages that nobody has stay unwritten, for the emulator to find who reads
  // them.
  std::vector<std::int32_t> order(page_count);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_source);
  std::vector<std::int32_t> table(sequences * most_pages, 1 << 20);
  const std::size_t slot_size = h.kv_heads * h.size, page_elements = page_size * slot_size;
  Buffer<T> keys(page_count * page_elements, "keys"), values(page_count * page_elements, "values");
  std::vector<std::vector<T>> key_rows(sequences), value_rows(sequences);
  for (std::size_t q = 0; q < sequences; ++q) {
    key_rows[q] = draw(lengths[q] * slot_size, 1);
    value_rows[q] = draw(lengths[q] * slot_size, 1);
    for (std::size_t page = 0; page < ceil_div(lengths[q], page_size); ++page) {
      const std::int32_t at = order.back();
      order.pop_back();
      table[q * most_pages + page] = at;
      const std::size_t begin = page * page_elements,
                        end = std::min(begin + page_elements, key_rows[q].size());
      const auto part = [&](const std::vector<T>& rows) {
        return std::span(rows).subspan(begin, end - begin);
      };
      keys.write(part(key_rows[q]), static_cast<std::size_t>(at) * page_elements);
      values.write(part(value_rows[q]), static_cast<std::size_t>(at) * page_elements);
    }
  }
  if (fault == Fault::kWrongPage) table[0] = table[1];

  const std::size_t words = ceil_div(most_behind, 32);
  std::vector<std::uint32_t> mask(total * words);
  std::vector<std::vector<std::vector<bool>>> sees(sequences);
  for (std::size_t q = 0; q < sequences; ++q) {
    const std::size_t behind = s.parents[q].size();
    sees[q].assign(behind, std::vector<bool>(behind));
    for (std::size_t i = 0; i < behind; ++i) {
      if (s.parents[q][i] >= 0) sees[q][i] = sees[q][static_cast<std::size_t>(s.parents[q][i])];
      sees[q][i][i] = true;
      if (i < s.kept) continue;
      for (std::size_t j = 0; j < behind; ++j) {
        const bool bit = sees[q][i][j] || (fault == Fault::kSeesSiblings && j < i);
        const std::size_t node = static_cast<std::size_t>(first_node[q]) + i - s.kept;
        if (bit) mask[node * words + j / 32] |= 1u << j % 32;
      }
    }
  }

  const std::vector<T> queries = draw(total * h.heads * h.size, 2);
  Buffer<T> query_buffer(queries, "queries"), out(total * h.heads * h.size, "out");
  Buffer<std::int32_t> table_buffer(table, "page_table"), first(first_node, "first_node"),
      prefix(prefix_length, "prefix_length"), length_buffer(length, "length");
  Buffer<std::uint32_t> mask_buffer(mask, "mask");
  const std::size_t max_nodes = total + spare_nodes;
  const std::size_t workspace =
      cuda::attention_workspace_bytes(max_nodes, sequences, h.heads, h.kv_heads, h.size, splits);
  Buffer<std::uint8_t> space(std::max<std::size_t>(workspace, 1), "workspace");
  if (splits > 1) {
    const std::size_t blocks = cuda::attention_tiles(max_nodes, sequences, group) * h.kv_heads;
    space.write(std::vector<std::uint8_t>(round_up(blocks * 4, 16)));
  }
  cuda::TreeAttention a{};
  a.type = std::is_same_v<T, Float16> ? cuda::Float::kFloat16 : cuda::Float::kBfloat16;
  a.head_size = h.size;
  a.heads = h.heads;
  a.kv_heads = h.kv_heads;
  a.sequences = sequences;
  a.max_nodes = max_nodes;
  a.queries = query_buffer.get();
  a.query_stride = a.out_stride = h.heads * h.size;
  a.out = out.get();
  a.keys = keys.get();
  a.values = values.get();
  a.page_stride = page_elements;
  a.slot_stride = slot_size;
  a.head_stride = h.size;
  a.page_size = page_size;
  a.page_table = table_buffer.get();
  a.max_pages = most_pages;
  a.first_node = first.get();
  a.prefix_length = prefix.get();
  a.length = length_buffer.get();
  a.mask = mask_buffer.get();
  a.mask_words = words;
  a.scale = 1 / std::sqrt(static_cast<float>(h.size));
  a.splits = splits;
  a.workspace = space.get();
  CHECK(cuda::tree_attention(a, nullptr) == cudaSuccess);
  const std::vector<T> result = out.read();

  double largest = 0;
  const double rounding = std::ldexp(1, std::is_same_v<T, Float16> ? -11 : -8);
  for (std::size_t q = 0; q < sequences; ++q) {
    for (std::size_t i = s.kept; i < s.parents[q].size(); ++i) {
      for (std::size_t head = 0; head < h.heads; ++head) {
        const std::size_t at =
            ((static_cast<std::size_t>(first_node[q]) + i - s.kept) * h.heads + head) * h.size;
        const std::size_t kv = head / group * h.size;
        std::vector<double> scores(lengths[q], -INFINITY);
        double most_size = 0;
        for (std::size_t p = 0; p < lengths[q]; ++p) {
          const auto prefixed = static_cast<std::size_t>(s.prefix[q]);
          if (p >= prefixed && !sees[q][i][p - prefixed]) continue;
          double score = 0, size = 0;
          for (std::size_t d = 0; d < h.size; ++d) {
            const double product = static_cast<double>(cuda::to_float(queries[at + d])) *
                                   static_cast<double>(cuda::to_float(key_rows[q][p * slot_size + kv + d]));
            score += product;
            size += std::abs(product);
          }
          scores[p] = score * static_cast<double>(a.scale);
          most_size = std::max(most_size, size * static_cast<double>(a.scale));
        }
        const double best = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& score : scores) sum += score = std::exp(score - best);
        // Weights are rounded to 16 bits before they meet the values, scores carry float32's error into the
        // exponent.
        const double relative = rounding +
                                4 * (static_cast<double>(h.size) / 16 + 8) * std::ldexp(1, -24) * most_size +
                                (static_cast<double>(lengths[q]) / 8 + 64) * std::ldexp(1, -24);
        for (std::size_t d = 0; d < h.size; ++d) {
          double exact = 0, size = 0;
          for (std::size_t p = 0; p < lengths[q]; ++p) {
            const double term =
                scores[p] / sum * static_cast<double>(cuda::to_float(value_rows[q][p * slot_size + kv + d]));
            exact += term;
            size += std::abs(term);
          }
          const double bound = 2 * relative * size + rounding * std::abs(exact) + 1e-7;
          const double error = std::abs(static_cast<double>(cuda::to_float(result[at + d])) - exact);
          largest = std::max(largest, error <= bound ? error / bound : 2.0);
        }
      }
    }
  }
  return largest;
}

const MakeTree kChain = [](int i) { return i - 1; };
const MakeTree kStar = [](int) { return 0; };
const MakeTree kRandom = [](int i) { return static_cast<int>(random_source() % static_cast<unsigned>(i)); };

void attention_is_right() {
  const std::vector<Heads> all = {{9, 3, 64}, {4, 4, 64}, {8, 2, 128}};
  const std::vector<std::pair<std::vector<int>, std::vector<int>>> steps = {
      {{0}, {1}}, {{0, 5}, {7, 33}}, {{40, 16, 1}, {5, 1, 40}}, {{130}, {3}}};
  std::uint64_t seed = 0;
  for (const Heads& h : all) {
    for (const MakeTree& tree : {kChain, kStar, kRandom}) {
      for (const auto& [prefix, nodes] : steps) {
        emulator::set_order(++seed);
        const Step made = step(prefix, nodes, tree);
        const std::size_t page_size = seed % 2 == 0 ? 16 : 32;
        const int splits = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 2 : 5;
        const double part = seed % 2 == 0 ? error_of_bound<Float16>(h, made, page_size, splits, 0)
                                          : error_of_bound<Bfloat16>(h, made, page_size, splits, 40);
        CHECK(part <= 1);
      }
    }
  }
}

void slots_anywhere_are_seen() {
  const Heads h{9, 3, 64};
  for (const MakeTree& tree : {kChain, kStar, kRandom}) {
    for (const std::size_t page_size : {std::size_t{1}, std::size_t{16}}) {
      const Step made = step({0, 17, 40}, {8, 41, 9}, tree, 7);
      CHECK(error_of_bound<Float16>(h, made, page_size, 1, 0) <= 1);
      CHECK(error_of_bound<Bfloat16>(h, made, page_size, 3, 5) <= 1);
    }
  }
}

void faults_are_found() {
  const Heads h{4, 2, 64};
  CHECK(error_of_bound<Float16>(h, step({3}, {12}, kStar), 16, 1, 0, Fault::kSeesSiblings) > 1);
  CHECK(error_of_bound<Float16>(h, step({40}, {12}, kStar), 16, 2, 0, Fault::kWrongPage) > 1);
  CHECK(error_of_bound<Float16>(h, step({40}, {12}, kStar), 16, 2, 0) <= 1);
  CHECK(error_of_bound<Float16>(h, step({3}, {12}, kStar, 5), 1, 1, 0, Fault::kSeesSiblings) > 1);
}

}  // namespace

int main() {
  attention_is_right();
  slots_anywhere_are_seen();
  faults_are_found();
}
