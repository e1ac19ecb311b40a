#pragma once

#include <cstddef>
#include <cstdint>

#include "activations.h"
#include "bidtrie/weights.h"

namespace bidtrie {

/// What one key-value head of a layer has stored, and which of it some queries see: slots in order.
struct AttentionContext {
  const void* keys;    // of slot 0, this head: float32 or float16
  const void* values;  // of slot 0, this head
  std::size_t stride;  // elements from one slot to the next
  const std::int32_t* slots;
  std::size_t count;
};

/// The running state of attention over positions that come in blocks: what an online softmax needs
/// (Milakov and Gimelshein, 2018).
struct AttentionState {
  float largest;  // of the scores so far
  float total;    // of exp(score - largest)
};

/// Positions that attention takes at once. Blocks are counted from the start of a node's context, so that
/// the order of its sums depends on nothing else.
inline constexpr std::size_t kAttentionBlock = 32;

/// The inner loops, once for each instruction set.
///
/// Every set gives the same bits: integer sums are exact, float sums run in one order that depends on neither
/// the number of nodes nor how rows are cut, and every product that is added is fused. Lengths named `padded`
/// are multiples of 16, with zeros behind the end.
struct Kernels {
  const char* name;

  /// out[n, r] = w[r] · x[n] + bias[r] for rows [row_begin, row_end), added to what is there if `accumulate`;
  /// `row_begin` is a multiple of 16; `bias` may be null.
  ///
  /// A quantized product is, over the groups of a row in order, fma(part, w_scale, sum), where part is the
  /// sum over the group's blocks of their exact integer products times the activations' scales; then
  /// fma(w_min, the group's sum of activations, sum) where there are minima.
  void (*linear)(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                 std::size_t nodes, float* out, std::size_t out_stride, const float* bias, bool accumulate);

  /// out[i] = w[ids[i]] · x[0] + bias[ids[i]]: the same bits as `linear`.
  void (*rows)(const MatrixView& w, const std::int32_t* ids, std::size_t count, const Activations& x,
               float* out, const float* bias);

  /// Round 32 values a block for the node at `place` of a panel: code = nearest even of x / scale. A block
  /// below 1e-30 throughout becomes zeros.
  void (*quantize)(const float* x, std::size_t blocks, PanelBlock* out, std::size_t place);

  /// out = x / sqrt(mean(x^2) + eps) * weight over n values.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::size_t n, std::size_t padded,
                   float* out);

  /// gate = gate / (1 + exp(-gate)) * up.
  void (*swiglu)(float* gate, const float* up, std::size_t padded);

  /// out = x as float16, to nearest even; what is beyond its range becomes its largest value.
  void (*to_half)(const float* x, std::size_t padded, std::uint16_t* out);

  /// Take positions [begin, end) of a context, a multiple of 32 positions each from `begin` on, into the
  /// states and sums [queries, padded] of queries [queries, padded] that all see them; `half`: keys and
  /// values are float16. `begin` is a multiple of 32; at 0 the states and sums begin anew. `scratch` has room
  /// for 2 * 32 * padded floats.
  void (*attend)(const float* queries, std::size_t count, const AttentionContext& context, std::size_t begin,
                 std::size_t end, bool half, std::size_t padded, float* scratch, AttentionState* states,
                 float* sums);

  /// Largest of x[n], and the sum of exp(x - largest); n > 0.
  void (*sum_exp)(const float* x, std::size_t n, float* largest, double* sum);

  /// For benchmarks: nothing but independent multiply-add instructions, 12 a round; returns the products
  /// made.
  std::uint64_t (*multiply_adds)(std::uint64_t rounds);

  /// For benchmarks: the sum of n values, n a multiple of 64, read as fast as one thread can.
  float (*read)(const float* x, std::size_t n);
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace bidtrie
