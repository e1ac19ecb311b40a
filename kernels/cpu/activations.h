#pragma once

#include <cstddef>
#include <cstdint>

#include "bidtrie/weights.h"
#include "buffer.h"

namespace bidtrie {

/// Activations of 8 nodes, rounded to 8 bits in blocks of 32 columns. A row of blocks makes a panel; what a
/// kernel reads of a block for its nodes lies at fixed distances.
///
///   x = scale * code, scale = largest magnitude / 127
struct alignas(64) PanelBlock {
  std::int8_t codes[kPanel][kBlock];
  float scale[kPanel];
  float sum[kPanel];            // scale * the codes' sum, for formats with a minimum
  std::int32_t minus8[kPanel];  // -8 * the codes' sum, for formats whose codes are stored unsigned
  std::int32_t first[kPanel];   // sum of the codes of the first 16 columns, for groups of 16
};

/// Inputs of a linear, one a node. Which part is read depends on the weights: float32 reads `values`, the
/// quantized formats read `panels`.
struct Activations {
  const float* values;  // [nodes, stride], zeros behind the end of a row
  std::size_t stride;
  const PanelBlock* panels;  // [ceil(nodes / 8), blocks]
  std::size_t blocks;
  std::size_t first;  // the node that counts as number 0
};

/// Memory for the inputs of linears of a number of nodes, as floats and rounded.
class ActivationRows {
 public:
  ActivationRows(std::size_t nodes, std::size_t cols)
      : stride_(round_up(cols, kBlock)),
        blocks_(stride_ / kBlock),
        values_(nodes * stride_),
        panels_(ceil_div(nodes, kPanel) * blocks_) {}

  std::size_t stride() const { return stride_; }
  std::size_t blocks() const { return blocks_; }
  float* values(std::size_t node) { return values_.data() + node * stride_; }
  /// Block `block` of the panel that a node is in; its place there is node % kPanel.
  PanelBlock* block(std::size_t node, std::size_t block) {
    return panels_.data() + node / kPanel * blocks_ + block;
  }
  /// From `node` on.
  Activations view(std::size_t node = 0) const {
    return {values_.data(), stride_, panels_.data(), blocks_, node};
  }

 private:
  std::size_t stride_;
  std::size_t blocks_;
  Buffer<float> values_;
  Buffer<PanelBlock> panels_;
};

}  // namespace bidtrie
