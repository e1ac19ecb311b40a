#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bidtrie/model_config.h"
#include "matrix.h"

namespace bidtrie {

/// Tensors by their Hugging Face names.
using TensorSources = std::map<std::string, TensorSource>;

/// A weight matrix and, where the checkpoint has one, its bias.
struct Linear {
  Matrix weight;
  Buffer<float> bias;  // [rows] or empty
};

struct Layer {
  Buffer<float> attention_norm;  // padded, as all norms
  Linear q, k, v, o;
  Buffer<float> q_norm, k_norm;  // [head_dim] if the model has qk_norm
  Buffer<float> mlp_norm;
  Linear gate, up, down;
};

/// The packed weights of a Llama-family model.
struct Model {
  /// Throws ModelError for a configuration that makes no sense and for missing or misshapen tensors. The
  /// sources are not needed afterwards.
  Model(const ModelConfig& config, const TensorSources& tensors, bool dequantize);

  const Matrix& head_weight() const { return head ? head->weight : embedding; }
  const float* head_bias() const { return head && head->bias.size() ? head->bias.data() : nullptr; }

  ModelConfig config;
  Arena arena;  // of all matrices, in the order of use
  Matrix embedding;
  std::vector<Layer> layers;
  Buffer<float> final_norm;
  std::optional<Linear> head;  // none: tied to the embedding
};

}  // namespace bidtrie
