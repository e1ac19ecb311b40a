#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bidtrie/tree_batch.h"
#include "buffer.h"
#include "kernels.h"
#include "kv_tree.h"
#include "model.h"
#include "thread_team.h"

namespace bidtrie {

/// Inputs of linears for a number of nodes, as floats and as 8-bit codes.
class ActivationRows {
 public:
  ActivationRows(std::size_t nodes, std::size_t cols);

  std::size_t stride() const { return stride_; }
  float* values(std::size_t node) { return values_.data() + node * stride_; }
  Activations view(std::size_t node = 0) const;
  /// Write the codes of columns [begin, end) of a node, both multiples of 32.
  void quantize(const Kernels& kernels, std::size_t node, std::size_t begin, std::size_t end);

 private:
  std::size_t cols_;
  std::size_t stride_;
  Buffer<float> values_;
  Buffer<std::int8_t> codes_;
  Buffer<float> scale_;
  Buffer<float> sum_;
};

/// The forward pass of a Llama-family model over a tree batch, and the KV cache that it reads and extends.
///
/// Every thread of the team walks through all phases together; a phase is cut by rows, nodes or heads in a
/// way that depends only on the batch, and no sum is ever split between threads.
class Forward {
 public:
  Forward(const Model& model, const Kernels& kernels, int threads, std::size_t slots, std::size_t max_nodes);

  int threads() const { return team_.size(); }

  /// Compute the placed nodes and fill `output.logits` (rows at `output.offsets`) and `output.logsumexp`.
  void run(const TreeBatch& batch, const StepPlan& plan, StepOutput& output) noexcept;

 private:
  struct Product;
  struct Scratch {
    Buffer<std::int32_t> slots;
    Buffer<float> scores;
    Buffer<float> head;
  };

  void work(int thread) noexcept;
  void embed(int thread);
  void normalize(int thread, const Buffer<float>& weight, std::size_t nodes, bool quantized);
  void rotate(int thread, std::size_t layer);
  void rotate_head(const float* from, const Buffer<float>& norm, std::int32_t position, float* to) const;
  void attend(int thread, std::size_t layer);
  void gate(int thread, const Layer& layer);
  void products(int thread, const Product* list, std::size_t count, std::size_t nodes) const;
  void drop_unwanted_nodes();
  void head(int thread);
  void head_chunk(int thread, std::size_t first, std::size_t last);

  const Model& model_;
  const Kernels& kernels_;
  ThreadTeam team_;

  std::size_t head_stride_;                // head_dim, padded
  std::size_t kv_stride_;                  // floats of a slot's keys, or values, in one layer
  std::vector<LazyFloats> keys_, values_;  // [layers], each [slots, kv heads, head_stride_]
  Buffer<float> cosines_, sines_;          // [positions, head_dim / 2]

  std::size_t hidden_stride_;
  Buffer<float> hidden_;     // [nodes, hidden_stride_] the residual stream
  ActivationRows normed_;    // inputs of q, k, v and of gate, up
  Buffer<float> q_, k_, v_;  // [nodes, heads * head_dim] as the linears leave them
  Buffer<float> queries_;    // [nodes, heads, head_stride_] rotated and scaled
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
