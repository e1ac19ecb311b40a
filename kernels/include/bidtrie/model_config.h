#pragma once

#include <cstddef>
#include <vector>

namespace bidtrie {

/// Shape of a Llama-family model: pre-norm RMSNorm, rotary positions, grouped-query attention, SwiGLU.
struct ModelConfig {
  std::size_t vocab_size;
  std::size_t hidden_size;
  std::size_t intermediate_size;
  std::size_t num_layers;
  std::size_t num_heads;
  std::size_t num_kv_heads;
  /// May differ from hidden_size / num_heads.
  std::size_t head_dim;
  float rms_norm_eps;
  /// [head_dim / 2]: radians a position, after whatever scaling the model uses.
  std::vector<float> inv_freq;
  /// Multiplies the cosines and sines.
  double attention_factor;
  /// Longest prefix plus path, in tokens.
  std::size_t context_length;
  /// The head is the embedding.
  bool tie_word_embeddings;
  /// Queries and keys are normalised a head at a time before they are rotated (Qwen3).
  bool qk_norm;

  std::size_t query_size() const { return num_heads * head_dim; }
  std::size_t kv_size() const { return num_kv_heads * head_dim; }
};

}  // namespace bidtrie
