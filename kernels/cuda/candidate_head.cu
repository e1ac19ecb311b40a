#include "candidate_head.cuh"

namespace bidtrie::cuda {

cudaError_t candidate_head(const CandidateHead& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(a.max_candidates, kHeadWarps)),
                  static_cast<unsigned>(a.rows));
  if (a.max_candidates > 0) {
    if (a.type == Float::kFloat16) {
      BIDTRIE_LAUNCH(candidate_logits<Float16>, grid, dim3(32 * kHeadWarps), stream, a);
    } else {
      BIDTRIE_LAUNCH(candidate_logits<Bfloat16>, grid, dim3(32 * kHeadWarps), stream, a);
    }
  }
  if (a.top_k > 0) {
    BIDTRIE_LAUNCH(candidate_top_k, dim3(static_cast<unsigned>(a.rows)), dim3(kTopThreads), stream, a);
  }
  return cudaGetLastError();
}

}  // namespace bidtrie::cuda
