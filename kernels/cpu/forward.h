#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "bidtrie/tree_batch.h"
#include "buffer.h"
#include "kernels.h"
#include "kv_tree.h"
#include "model.h"
#include "thread_team.h"

namespace bidtrie {

/// The forward pass of a Llama-family model over a tree batch, and the KV cache that it reads and extends.
///
/// Every thread of the team walks through all phases together; a phase is cut by rows, nodes or heads in a
/// way that depends only on the batch, and no sum is ever split between threads.
class Forward {
 public:
  /// `half_kv`: keys and values are stored as float16, else as float32.
  Forward(const Model& model, const Kernels& kernels, int threads, std::size_t slots, std::size_t max_nodes,
          bool half_kv);

  int threads() const { return team_.size(); }

  /// Compute the placed nodes and fill `output.logits` (rows at `output.offsets`) and `output.logsumexp`.
  void run(const TreeBatch& batch, const StepPlan& plan, StepOutput& output) noexcept;

 private:
  struct Product;
  /// What a thread needs to attend for a panel of nodes.
  struct Scratch {
    std::vector<std::int32_t> slots[kPanel];  // [positions] each
    std::size_t counts[kPanel] = {};
    std::size_t shared = 0;              // positions that all nodes of the panel share, a multiple of 32
    Buffer<float> rows;                  // keys and values of a block of positions
    std::vector<AttentionState> states;  // [nodes of a panel, query heads of a key-value head]
    Buffer<float> sums;                  // the same, head_stride_ floats each
    Buffer<float> head;                  // one key on its way to the cache
  };

  void work(int thread) noexcept;
  void embed(int thread);
  void normalize(int thread, const Buffer<float>& weight, std::size_t nodes, bool quantized);
  void rotate(int thread, std::size_t layer);
  void rotate_head(const float* from, const Buffer<float>& norm, std::int32_t position, float* to) const;
  /// Where the cache holds a slot's keys or values of a head.
  void* cached(LazyBuffer& cache, std::size_t slot, std::size_t kv_head);
  void store(const float* head, void* to) const;
  void list_contexts(Scratch& scratch, std::size_t first, std::size_t count, bool last) const;
  void attend(int thread, std::size_t layer);
  float* queries_of(std::size_t kv_head, std::size_t node);
  void gate(int thread, const Layer& layer);
  void products(int thread, const Product* list, std::size_t count, std::size_t nodes) const;
  void drop_unwanted_nodes();
  void head(int thread);
  void head_chunk(int thread, std::size_t first, std::size_t last);

  const Model& model_;
  const Kernels& kernels_;
  ThreadTeam team_;

  std::size_t head_stride_;  // head_dim, padded
  std::size_t kv_stride_;    // elements of a slot's keys, or values, in one layer
  bool half_kv_;
  std::vector<LazyBuffer> keys_, values_;  // [layers], each [slots, kv heads, head_stride_]
  Buffer<float> cosines_, sines_;          // [positions, head_dim / 2]

  std::size_t max_nodes_;
  std::size_t hidden_stride_;
  Buffer<float> hidden_;     // [nodes, hidden_stride_] the residual stream
  ActivationRows normed_;    // inputs of q, k, v and of gate, up
  Buffer<float> q_, k_, v_;  // [nodes, heads * head_dim] as the linears leave them
  Buffer<float> queries_;    // [kv heads, max_nodes, heads / kv heads, head_stride_] rotated and scaled
  ActivationRows attended_;  // inputs of o
  ActivationRows inner_;     // inputs of down
  Buffer<float> up_;
  ActivationRows head_inputs_;
  Buffer<float> head_rows_;      // [rows of a chunk, vocabulary]
  Buffer<float> block_largest_;  // [rows of a chunk, blocks of the vocabulary]
  Buffer<double> block_sum_;
  std::vector<Scratch> scratch_;  // a thread each

  // The step at hand.
  const TreeBatch* batch_ = nullptr;
  const StepPlan* plan_ = nullptr;
  StepOutput* output_ = nullptr;
  std::size_t nodes_ = 0;
  std::vector<std::int32_t> wanted_;    // nodes that are computed to the end, ascending
  std::vector<std::int32_t> place_of_;  // [T] index into wanted_
};

}  // namespace bidtrie
