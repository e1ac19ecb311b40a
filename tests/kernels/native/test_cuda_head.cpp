// The GPU's candidate head in the emulator against float64: rows with none, one and many candidates, tokens
// that are not there, equals.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/candidate_head.h"
#include "emulator/launch.h"

namespace {

using namespace bidtrie;
using cuda::Bfloat16, cuda::Float16;
using emulator::Buffer;

std::mt19937 random_source(22);

template <class T>
void check_head(std::size_t cols, std::size_t top_k) {
  constexpr std::size_t kVocabulary = 300;
  const std::vector<int> counts = {0, 1, 37, 290, 4};
  std::normal_distribution<float> normal;
  const auto draw = [&](std::size_t count) {
    std::vector<T> values(count);
    for (T& value : values) value = cuda::from_float<T>(normal(random_source) / 4);
    return values;
  };
  const std::size_t rows = counts.size(), stride = cols + 8;
  const std::vector<T> head = draw(kVocabulary * cols), hidden = draw(rows * stride);
  std::vector<std::int32_t> offsets = {0}, ids;
  for (const int count : counts) {
    offsets.push_back(offsets.back() + count);
    for (int i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>(random_source() % kVocabulary));
  }
  // A token twice, one before the first and one behind the last.
  std::copy_n(std::vector<std::int32_t>{7, -1, kVocabulary, 7}.begin(), 4, ids.end() - 4);

  Buffer<T> head_buffer(head, "head"), hidden_buffer(hidden, "hidden");
  Buffer<std::int32_t> offset_buffer(offsets, "offsets"), id_buffer(ids, "ids"),
      best(rows * top_k + 1, "best");
  Buffer<float> logits(ids.size(), "logits"), scores(rows * top_k + 1, "scores");
  best.write(std::vector<std::int32_t>{0}, rows * top_k);
  scores.write(std::vector<float>{0}, rows * top_k);
  cuda::CandidateHead a{};
  a.type = std::is_same_v<T, Float16> ? cuda::Float::kFloat16 : cuda::Float::kBfloat16;
  a.head = head_buffer.get();
  a.vocabulary = kVocabulary;
  a.cols = cols;
  a.hidden = hidden_buffer.get();
  a.hidden_stride = stride;
  a.rows = rows;
  a.max_candidates = 290;
  a.offsets = offset_buffer.get();
  a.ids = id_buffer.get();
  a.logits = logits.get();
  a.top_k = top_k;
  a.best = best.get();
  a.log_probability = scores.get();
  CHECK(cuda::candidate_head(a, nullptr) == cudaSuccess);

  const std::vector<float> got = logits.read();
  const std::vector<std::int32_t> chosen = best.read();
  const std::vector<float> chosen_scores = scores.read();
  for (std::size_t row = 0; row < rows; ++row) {
    const auto begin = static_cast<std::size_t>(offsets[row]),
               end = static_cast<std::size_t>(offsets[row + 1]);
    for (std::size_t i = begin; i < end; ++i) {
      if (ids[i] < 0 || ids[i] >= static_cast<int>(kVocabulary)) {
        CHECK(std::isinf(got[i]) && got[i] < 0);
        continue;
      }
      double exact = 0, size = 0;
      for (std::size_t c = 0; c < cols; ++c) {
        const double product =
            static_cast<double>(cuda::to_float(head[static_cast<std::size_t>(ids[i]) * cols + c])) *
            static_cast<double>(cuda::to_float(hidden[row * stride + c]));
        exact += product;
        size += std::abs(product);
      }
      CHECK(std::abs(static_cast<double>(got[i]) - exact) <=
            (static_cast<double>(cols) / 32 + 16) * std::ldexp(1, -24) * size + 1e-30);
    }
    // The best by these logits, the earlier of equals, and their share of the row.
    std::vector<std::size_t> order(end - begin);
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t x, std::size_t y) { return got[x] > got[y]; });
    double total = 0;
    for (const std::size_t i : order)
      total += std::exp(static_cast<double>(got[i]) - static_cast<double>(got[order[0]]));
    for (std::size_t k = 0; k < top_k; ++k) {
      const std::size_t at = row * top_k + k;
      if (k >= order.size()) {
        CHECK(chosen[at] == -1 && std::isinf(chosen_scores[at]));
        continue;
      }
      CHECK(chosen[at] == static_cast<std::int32_t>(order[k] - begin));
      if (std::isinf(got[order[k]])) continue;
      const double exact =
          static_cast<double>(got[order[k]]) - static_cast<double>(got[order[0]]) - std::log(total);
      CHECK(std::abs(static_cast<double>(chosen_scores[at]) - exact) <= 2e-6 * (1 + std::abs(exact)));
    }
  }
}

}  // namespace

int main() {
  for (const std::size_t cols : {8u, 264u, 576u}) {
    check_head<Float16>(cols, 5);
    check_head<Bfloat16>(cols, 0);
    check_head<Bfloat16>(cols, 40);
  }
}
