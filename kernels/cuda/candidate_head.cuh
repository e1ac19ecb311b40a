#pragma once

#include "candidate_head.h"

namespace bidtrie::cuda {

inline constexpr int kHeadWarps = 8;
inline constexpr int kTopThreads = 128;

/// Logits, a warp each. Grid: (groups of 8 candidates, rows).
template <class T>
__global__ void __launch_bounds__(32 * kHeadWarps) candidate_logits(CandidateHead a) {
  const int row = static_cast<int>(blockIdx.y), lane = static_cast<int>(threadIdx.x % 32);
  const int first = load(a.offsets + row), count = load(a.offsets + row + 1) - first;
  const int candidate = static_cast<int>(blockIdx.x) * kHeadWarps + static_cast<int>(threadIdx.x / 32);
  if (candidate >= count) return;
  const int id = load(a.ids + first + candidate);
  const bool valid = id >= 0 && static_cast<std::size_t>(id) < a.vocabulary;
  float sum = 0;
  if (valid) {
    const T* w = static_cast<const T*>(a.head) + static_cast<std::size_t>(id) * a.cols;
    const T* x = static_cast<const T*>(a.hidden) + static_cast<std::size_t>(row) * a.hidden_stride;
    for (std::size_t col = 8 * static_cast<std::size_t>(lane); col < a.cols; col += 8 * 32) {
      const Words4 weights = load_once16(w + col), values = load(reinterpret_cast<const Words4*>(x + col));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const auto half = [i](const Words4& words) {
          return to_float(T{static_cast<std::uint16_t>(words.w[i / 2] >> 16 * (i % 2))});
        };
        sum = multiply_add(half(weights), half(values), sum);
      }
    }
  }
#pragma unroll
  for (int far = 16; far > 0; far /= 2) sum += shuffle_xor(sum, far);
  if (lane == 0) store(a.logits + first + candidate, valid ? sum : -infinity());
}

/// A candidate and its logit; the better one has the larger logit, or is the earlier of equals.
struct Choice {
  float logit;
  int index;
};

__device__ __forceinline__ bool is_better(const Choice& a, const Choice& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.index < b.index);
}

/// The best of a row, a block each: the best that is worse than the last one, top_k times.
static __global__ void __launch_bounds__(kTopThreads) candidate_top_k(CandidateHead a) {
  constexpr int kWarps = kTopThreads / 32;
  __shared__ Shared<float, kWarps> warp_logit;
  __shared__ Shared<int, kWarps> warp_index;
  __shared__ Shared<float, kWarps> warp_total;
  const int row = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int first = load(a.offsets + row), count = load(a.offsets + row + 1) - first;
  constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
  constexpr int kNone = 0x7fffffff;

  float log_total = 0;
  Choice last{infinity(), -1};
  for (std::size_t k = 0; k < a.top_k; ++k) {
    Choice best{-infinity(), kNone};
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kTopThreads) {
      const Choice one{load_fresh(a.logits + first + i), i};
      if (is_better(last, one) && (best.index == kNone || is_better(one, best))) best = one;
    }
#pragma unroll
    for (int far = 16; far > 0; far /= 2) {
      const Choice other{shuffle_xor(best.logit, far), shuffle_xor(best.index, far)};
      if (other.index != kNone && (best.index == kNone || is_better(other, best))) best = other;
    }
    if (lane == 0) {
      warp_logit.set(warp, best.logit);
      warp_index.set(warp, best.index);
    }
    sync_block();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const Choice other{warp_logit.get(w), warp_index.get(w)};
      if (other.index != kNone && (best.index == kNone || is_better(other, best))) best = other;
    }
    if (k == 0 && best.index != kNone && best.logit > -infinity()) {
      // The softmax is over all candidates, relative to the best one.
      float total = 0;
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kTopThreads) {
        total += power_of_2((load_fresh(a.logits + first + i) - best.logit) * kLog2E);
      }
#pragma unroll
      for (int far = 16; far > 0; far /= 2) total += shuffle_xor(total, far);
      if (lane == 0) warp_total.set(warp, total);
      sync_block();
      total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += warp_total.get(w);
      log_total = best.logit + log_2(total) * kLn2;
    }
    if (threadIdx.x == 0) {
      const std::size_t at = static_cast<std::size_t>(row) * a.top_k + k;
      store(a.best + at, best.index == kNone ? -1 : best.index);
      store(a.log_probability + at, best.index == kNone ? -infinity() : best.logit - log_total);
    }
    last = best.index == kNone ? Choice{-infinity(), kNone} : best;
    sync_block();
  }
}

}  // namespace bidtrie::cuda
