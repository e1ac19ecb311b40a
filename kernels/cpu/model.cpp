#include "model.h"

#include <cmath>
#include <cstring>

#include "bidtrie/error.h"

namespace bidtrie {
namespace {

const ModelConfig& checked(const ModelConfig& config) {
  const auto expect = [](bool holds, const char* what) {
    if (!holds) throw ModelError(message("model configuration: ", what));
  };
  constexpr std::size_t kMost = std::size_t{1} << 24;  // keeps every product of two sizes far from overflow
  for (const std::size_t n : {config.vocab_size, config.hidden_size, config.intermediate_size,
                              config.num_heads, config.num_kv_heads, config.head_dim}) {
    expect(n > 0 && n <= kMost, "sizes must be 1 to 2^24");
  }
  expect(config.context_length > 0 && config.context_length <= std::size_t{1} << 30,
         "context_length must be 1 to 2^30");
  expect(config.num_layers > 0 && config.num_layers <= 4096, "num_layers must be 1 to 4096");
  expect(config.num_heads % config.num_kv_heads == 0, "num_heads must be a multiple of num_kv_heads");
  expect(config.query_size() <= kMost, "num_heads * head_dim must be at most 2^24");
  expect(config.head_dim % 2 == 0, "head_dim must be even");
  expect(config.inv_freq.size() == config.head_dim / 2, "inv_freq must hold head_dim / 2 values");
  for (const float frequency : config.inv_freq) expect(std::isfinite(frequency), "inv_freq must be finite");
  expect(std::isfinite(config.attention_factor), "attention_factor must be finite");
  expect(config.rms_norm_eps >= 0 && std::isfinite(config.rms_norm_eps), "rms_norm_eps must be at least 0");
  return config;
}

class Loader {
 public:
  Loader(const TensorSources& tensors, bool dequantize, Arena& arena)
      : tensors_(tensors), dequantize_(dequantize), arena_(arena) {}

  Matrix matrix(const std::string& name, std::size_t rows, std::size_t cols) const {
    const TensorSource& source = find(name);
    check_tensor(name, source, {rows, cols});
    return Matrix(name, source, dequantize_, arena_);
  }

  Buffer<float> vector(const std::string& name, std::size_t size) const {
    const TensorSource& source = find(name);
    if (source.storage != Storage::kFloat32) throw ModelError(message(name, ": expected float32"));
    check_tensor(name, source, {size});
    Buffer<float> values(round_up(size, kBlock));
    std::memcpy(values.data(), source.data.data(), size * sizeof(float));
    return values;
  }

  Linear linear(const std::string& name, std::size_t rows, std::size_t cols) const {
    Matrix weight = matrix(name + ".weight", rows, cols);
    const bool has_bias = tensors_.contains(name + ".bias");
    return {std::move(weight), has_bias ? vector(name + ".bias", rows) : Buffer<float>()};
  }

 private:
  const TensorSource& find(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw ModelError(message(name, ": missing"));
    return found->second;
  }

  const TensorSources& tensors_;
  const bool dequantize_;
  Arena& arena_;
};

}  // namespace

Model::Model(const ModelConfig& given, const TensorSources& tensors, bool dequantize)
    : config(checked(given)),
      embedding(Loader(tensors, dequantize, arena)
                    .matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size)) {
  const Loader load(tensors, dequantize, arena);
  const std::size_t hidden = config.hidden_size, inner = config.intermediate_size;
  layers.reserve(config.num_layers);
  for (std::size_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = message("model.layers.", i, ".");
    const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
    layers.push_back({
        load.vector(layer + "input_layernorm.weight", hidden),
        load.linear(attention + "q_proj", config.query_size(), hidden),
        load.linear(attention + "k_proj", config.kv_size(), hidden),
        load.linear(attention + "v_proj", config.kv_size(), hidden),
        load.linear(attention + "o_proj", hidden, config.query_size()),
        config.qk_norm ? load.vector(attention + "q_norm.weight", config.head_dim) : Buffer<float>(),
        config.qk_norm ? load.vector(attention + "k_norm.weight", config.head_dim) : Buffer<float>(),
        load.vector(layer + "post_attention_layernorm.weight", hidden),
        load.linear(mlp + "gate_proj", inner, hidden),
        load.linear(mlp + "up_proj", inner, hidden),
        load.linear(mlp + "down_proj", hidden, inner),
    });
  }
  final_norm = load.vector("model.norm.weight", hidden);
  if (!config.tie_word_embeddings) head = load.linear("lm_head", config.vocab_size, hidden);
}

}  // namespace bidtrie
