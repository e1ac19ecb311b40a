#pragma once

#include <cstddef>
#include <cstdint>

#include "bidtrie/weights.h"
#include "device.cuh"
#include "linear.h"

// The head for wanted tokens only: a trie node's children are a few of many thousands, so their logits and
// the best of them cost next to nothing.

namespace bidtrie::cuda {

/// All pointers are the device's.
struct CandidateHead {
  Float type;
  const void* head;  // [vocabulary, cols], aligned to 16 bytes
  std::size_t vocabulary;
  std::size_t cols;    // a multiple of 8
  const void* hidden;  // [rows, hidden_stride], aligned to 16 bytes
  std::size_t hidden_stride;
  std::size_t rows;
  std::size_t max_candidates;  // of a row

  const std::int32_t* offsets;  // [rows + 1]: row r wants ids[offsets[r] … offsets[r + 1])
  const std::int32_t* ids;      // an id outside the vocabulary has a logit of -infinity
  float* logits;                // [offsets[rows]]

  std::size_t top_k;  // 0: logits alone
  std::int32_t*
      best;  // [rows, top_k]: which of the row's candidates, best first, the earlier of equals; -1: no more
  float* log_probability;  // [rows, top_k]: natural log of the softmax over the row's candidates
};

cudaError_t candidate_head(const CandidateHead& arguments, cudaStream_t stream);

}  // namespace bidtrie::cuda
