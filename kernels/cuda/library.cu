// The kernels as a shared library with a C interface, so that one build serves every Python and every
// PyTorch: callers pass addresses (service/bidtrie/cuda). Callers check shapes and alignment; what only the
// library knows is answered with a code.

#include <cstring>

#include "candidate_head.h"
#include "linear.h"
#include "tree_attention.h"

using namespace bidtrie;

namespace {

WeightFormat format_of(int codes, int pattern, std::int64_t group) {
  return {static_cast<Codes>(codes), static_cast<Pattern>(pattern), static_cast<std::size_t>(group)};
}

std::size_t size(std::int64_t n) {
  return static_cast<std::size_t>(n);
}

}  // namespace

extern "C" {

/// Bytes of a packed matrix; -1 for a format that the kernels do not take.
std::int64_t bidtrie_packed_bytes(int codes, int pattern, std::int64_t group, std::int64_t rows,
                                  std::int64_t cols) {
  const WeightFormat format = format_of(codes, pattern, group);
  if (!gpu::is_packable(format) || cols % 16 != 0) return -1;
  return static_cast<std::int64_t>(gpu::packed_bytes(format, size(rows), size(cols)));
}

/// A gpu::PackError as a number. Host memory.
int bidtrie_pack(int codes, int pattern, std::int64_t group, std::int64_t rows, std::int64_t cols,
                 const std::uint8_t* code_bytes, const std::uint16_t* scales, const std::uint16_t* minima,
                 const std::uint8_t* positions, std::uint8_t* out) {
  return static_cast<int>(gpu::pack(
      {format_of(codes, pattern, group), size(rows), size(cols), code_bytes, scales, minima, positions},
      out));
}

/// How a linear of up to `nodes` nodes is cut: warps and splits, and how many counters and floats that takes.
void bidtrie_linear_plan(int codes, int pattern, std::int64_t group, std::int64_t rows, std::int64_t cols,
                         std::int64_t nodes, int multiprocessors, std::int64_t* plan) {
  const WeightFormat format = format_of(codes, pattern, group);
  const cuda::LinearPlan made =
      cuda::linear_plan(format, size(rows), size(cols), size(nodes), multiprocessors);
  plan[0] = made.warps;
  plan[1] = made.splits;
  plan[2] = static_cast<std::int64_t>(cuda::linear_counters(format, size(rows), size(nodes), made));
  plan[3] = static_cast<std::int64_t>(cuda::linear_partials(format, size(rows), size(nodes), made));
}

/// A cudaError_t as a number.
int bidtrie_linear(int codes, int pattern, std::int64_t group, std::int64_t rows, std::int64_t cols,
                   const void* weights, const std::int8_t* table, int type, const void* x,
                   std::int64_t x_stride, std::int64_t nodes, const void* bias, void* out,
                   std::int64_t out_stride, int float_out, int warps, int splits, std::uint32_t* counters,
                   float* partials, void* stream) {
  cuda::Linear a{};
  a.format = format_of(codes, pattern, group);
  a.rows = size(rows);
  a.cols = size(cols);
  a.weights = static_cast<const std::uint8_t*>(weights);
  if (table != nullptr) std::memcpy(a.table.data(), table, a.table.size());
  a.type = static_cast<cuda::Float>(type);
  a.x = x;
  a.x_stride = size(x_stride);
  a.nodes = size(nodes);
  a.bias = bias;
  a.out = out;
  a.out_stride = size(out_stride);
  a.float_out = float_out != 0;
  a.plan = {warps, splits};
  a.counters = counters;
  a.partials = partials;
  return static_cast<int>(cuda::linear(a, static_cast<cudaStream_t>(stream)));
}

int bidtrie_attention_splits(std::int64_t max_nodes, std::int64_t sequences, std::int64_t heads,
                             std::int64_t kv_heads, std::int64_t max_length, int multiprocessors) {
  return cuda::attention_splits(size(max_nodes), size(sequences), size(heads), size(kv_heads),
                                size(max_length), multiprocessors);
}

std::int64_t bidtrie_attention_workspace_bytes(std::int64_t max_nodes, std::int64_t sequences,
                                               std::int64_t heads, std::int64_t kv_heads,
                                               std::int64_t head_size, int splits) {
  return static_cast<std::int64_t>(cuda::attention_workspace_bytes(
      size(max_nodes), size(sequences), size(heads), size(kv_heads), size(head_size), splits));
}

int bidtrie_tree_attention(int type, std::int64_t head_size, std::int64_t heads, std::int64_t kv_heads,
                           std::int64_t sequences, std::int64_t max_nodes, const void* queries,
                           std::int64_t query_stride, void* out, std::int64_t out_stride, const void* keys,
                           const void* values, std::int64_t page_stride, std::int64_t slot_stride,
                           std::int64_t head_stride, std::int64_t page_size, const std::int32_t* page_table,
                           std::int64_t max_pages, const std::int32_t* first_node,
                           const std::int32_t* prefix_length, const std::int32_t* length,
                           const std::uint32_t* mask, std::int64_t mask_words, float scale, int splits,
                           void* workspace, void* stream) {
  cuda::TreeAttention a{};
  a.type = static_cast<cuda::Float>(type);
  a.head_size = size(head_size);
  a.heads = size(heads);
  a.kv_heads = size(kv_heads);
  a.sequences = size(sequences);
  a.max_nodes = size(max_nodes);
  a.queries = queries;
  a.query_stride = size(query_stride);
  a.out = out;
  a.out_stride = size(out_stride);
  a.keys = keys;
  a.values = values;
  a.page_stride = size(page_stride);
  a.slot_stride = size(slot_stride);
  a.head_stride = size(head_stride);
  a.page_size = size(page_size);
  a.page_table = page_table;
  a.max_pages = size(max_pages);
  a.first_node = first_node;
  a.prefix_length = prefix_length;
  a.length = length;
  a.mask = mask;
  a.mask_words = size(mask_words);
  a.scale = scale;
  a.splits = splits;
  a.workspace = workspace;
  return static_cast<int>(cuda::tree_attention(a, static_cast<cudaStream_t>(stream)));
}

int bidtrie_candidate_head(int type, const void* head, std::int64_t vocabulary, std::int64_t cols,
                           const void* hidden, std::int64_t hidden_stride, std::int64_t rows,
                           std::int64_t max_candidates, const std::int32_t* offsets, const std::int32_t* ids,
                           float* logits, std::int64_t top_k, std::int32_t* best, float* log_probability,
                           void* stream) {
  cuda::CandidateHead a{};
  a.type = static_cast<cuda::Float>(type);
  a.head = head;
  a.vocabulary = size(vocabulary);
  a.cols = size(cols);
  a.hidden = hidden;
  a.hidden_stride = size(hidden_stride);
  a.rows = size(rows);
  a.max_candidates = size(max_candidates);
  a.offsets = offsets;
  a.ids = ids;
  a.logits = logits;
  a.top_k = size(top_k);
  a.best = best;
  a.log_probability = log_probability;
  return static_cast<int>(cuda::candidate_head(a, static_cast<cudaStream_t>(stream)));
}

const char* bidtrie_cuda_error(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

}  // extern "C"
