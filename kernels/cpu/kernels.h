#pragma once

#include <cstddef>
#include <cstdint>

#include "bidtrie/weights.h"

namespace bidtrie {

/// Inputs of a linear, a row a node. Which part is read depends on the weights: float32 reads `values`, the
/// quantized formats read `codes`, `scale` and `sum`, as `Kernels::quantize` writes them.
struct Activations {
  const float* values;  // [nodes, stride], padded with zeros to a multiple of 8 columns
  std::size_t stride;
  const std::int8_t* codes;  // [nodes, cols]
  const float* scale;        // [nodes, cols / 32]
  const float* sum;          // [nodes, cols / 32] scale times the sum of the group's codes
};

/// A span of positions that attention reads: where a slot's keys and values lie, and which slots, in order.
struct AttentionContext {
  const float* keys;    // of slot 0, this head
  const float* values;  // of slot 0, this head
  std::size_t stride;   // floats from one slot to the next
  const std::int32_t* slots;
  std::size_t count;  // at least 1
};

/// The inner loops, once for each instruction set.
///
/// Every set gives the same bits: integer sums are exact, float sums run in one order that depends on neither
/// the number of nodes nor how rows are cut, and every product that is added is fused. Lengths named `padded`
/// are multiples of 8, with zeros behind the end.
struct Kernels {
  const char* name;

  /// out[n, r] = w[r] · x[n] + bias[r] for rows [row_begin, row_end), added to what is there if `accumulate`;
  /// `row_begin` is a multiple of 8; `bias` may be null.
  void (*linear)(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                 std::size_t nodes, float* out, std::size_t out_stride, const float* bias, bool accumulate);

  /// out[i] = w[ids[i]] · x + bias[ids[i]] for one node: the same bits as `linear`.
  void (*rows)(const MatrixView& w, const std::int32_t* ids, std::size_t count, const Activations& x,
               float* out, const float* bias);

  /// Signed 8-bit codes in groups of 32: scale = largest magnitude / 127, code = nearest even of x / scale. A
  /// group below 1e-30 throughout becomes zeros.
  void (*quantize)(const float* x, std::size_t groups, std::int8_t* codes, float* scale, float* sum);

  /// out = x / sqrt(mean(x^2) + eps) * weight over n values.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::size_t n, std::size_t padded,
                   float* out);

  /// gate = gate / (1 + exp(-gate)) * up.
  void (*swiglu)(float* gate, const float* up, std::size_t padded);

  /// out[head_dim] = softmax(q · keys) · values for one head; `scores` has room for count rounded up to 8.
  void (*attention)(const float* q, const AttentionContext& context, std::size_t padded_head_dim,
                    float* scores, float* out);

  /// Largest of x[n], and the sum of exp(x - largest); n > 0.
  void (*sum_exp)(const float* x, std::size_t n, float* largest, double* sum);
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();

}  // namespace bidtrie
