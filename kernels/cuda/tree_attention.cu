#include "tree_attention.cuh"

namespace bidtrie::cuda {
namespace {

template <class T>
cudaError_t launch(const TreeAttention& a, const AttentionKernel& k, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(attention_tiles(a.max_nodes, a.sequences, a.heads / a.kv_heads));
  const dim3 grid(tiles, static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(a.splits));
  const dim3 block(32 * kAttentionWarps);
  if (a.head_size == 64) {
    BIDTRIE_LAUNCH((tree_attention_kernel<T, 64>), grid, block, stream, k);
  } else {
    BIDTRIE_LAUNCH((tree_attention_kernel<T, 128>), grid, block, stream, k);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t tree_attention(const TreeAttention& a, cudaStream_t stream) {
  AttentionKernel k{};
  k.queries = a.queries;
  k.keys = a.keys;
  k.values = a.values;
  k.out = a.out;
  k.query_stride = a.query_stride;
  k.out_stride = a.out_stride;
  k.page_stride = a.page_stride;
  k.slot_stride = a.slot_stride;
  k.head_stride = a.head_stride;
  k.page_size = static_cast<int>(a.page_size);
  k.max_pages = static_cast<int>(a.max_pages);
  k.sequences = static_cast<int>(a.sequences);
  k.group = static_cast<int>(a.heads / a.kv_heads);
  k.mask_words = static_cast<int>(a.mask_words);
  k.page_table = a.page_table;
  k.first_node = a.first_node;
  k.prefix_length = a.prefix_length;
  k.length = a.length;
  k.mask = a.mask;
  k.scale = a.scale * 1.4426950408889634f;
  if (a.splits > 1) {
    const std::size_t blocks = attention_tiles(a.max_nodes, a.sequences, a.heads / a.kv_heads) * a.kv_heads;
    k.counters = static_cast<std::uint32_t*>(a.workspace);
    k.partials = reinterpret_cast<float*>(static_cast<std::uint8_t*>(a.workspace) + round_up(blocks * 4, 16));
  }
  return a.type == Float::kFloat16 ? launch<Float16>(a, k, stream) : launch<Bfloat16>(a, k, stream);
}

}  // namespace bidtrie::cuda
