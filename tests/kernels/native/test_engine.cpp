// A tiny random model in every weight format: a node's logits have the same bits alone and in any batch, on
// any number of threads, with any instruction set, however its chain is cut into steps, and as candidates.

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bidtrie/error.h"
#include "check.h"
#include "engine.h"
#include "instruction_set.h"
#include "random_tensor.h"

namespace {

using bidtrie::Engine;
using bidtrie::EngineOptions;
using bidtrie::kPrefixEnd;
using bidtrie::StepOutput;
using bidtrie::Storage;
using bidtrie::TensorSources;
using bidtrie::TreeBatch;
using Ints = std::vector<std::int32_t>;

/// How the linears of a tiny model are stored.
enum class Weights { kFloat32, kQ4_1, kQ8_0, kGroups };

struct TinyModel {
  bidtrie::ModelConfig config{};
  std::vector<RandomTensor> held;
  TensorSources tensors;
  std::mt19937 random{7};

  /// Odd sizes need padding everywhere.
  TinyModel(Weights weights, bool odd) : weights_(weights) {
    config.vocab_size = 83;
    const bool groups = weights == Weights::kGroups;
    config.hidden_size = odd ? (groups ? 80 : 36) : 64;
    config.intermediate_size = odd ? (groups ? 112 : 50) : 96;
    config.num_layers = 3;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = odd ? (groups ? 20 : 10) : 24;
    config.rms_norm_eps = 1e-5f;
    for (std::size_t i = 0; i < config.head_dim / 2; ++i) {
      config.inv_freq.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(config.head_dim)));
    }
    config.attention_factor = 1;
    config.context_length = 40;
    config.tie_word_embeddings = odd;
    config.qk_norm = odd;
    const std::size_t hidden = config.hidden_size, inner = config.intermediate_size;
    held.reserve(200);
    matrix("model.embed_tokens.weight", config.vocab_size, hidden);
    if (!odd) matrix("lm_head.weight", config.vocab_size, hidden);
    vector("model.norm.weight", hidden);
    for (std::size_t i = 0; i < config.num_layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      vector(layer + "input_layernorm.weight", hidden);
      vector(layer + "post_attention_layernorm.weight", hidden);
      matrix(layer + "self_attn.q_proj.weight", config.query_size(), hidden);
      matrix(layer + "self_attn.k_proj.weight", config.kv_size(), hidden);
      matrix(layer + "self_attn.v_proj.weight", config.kv_size(), hidden);
      matrix(layer + "self_attn.o_proj.weight", hidden, config.query_size());
      matrix(layer + "mlp.gate_proj.weight", inner, hidden);
      matrix(layer + "mlp.up_proj.weight", inner, hidden);
      matrix(layer + "mlp.down_proj.weight", hidden, inner);
      if (i % 2) {
        vector(layer + "self_attn.q_proj.bias", config.query_size());
        vector(layer + "self_attn.k_proj.bias", config.kv_size());
        vector(layer + "mlp.down_proj.bias", hidden);
      }
      if (odd) {
        vector(layer + "self_attn.q_norm.weight", config.head_dim);
        vector(layer + "self_attn.k_norm.weight", config.head_dim);
      }
    }
  }

  void add(const std::string& name, RandomTensor tensor) {
    held.push_back(std::move(tensor));
    tensors[name] = held.back().source();
  }

  void vector(const std::string& name, std::size_t size) {
    add(name, RandomTensor::floats({size}, 1, random));
  }

  void matrix(const std::string& name, std::size_t rows, std::size_t cols) {
    switch (weights_) {
      case Weights::kFloat32:
        return add(name, RandomTensor::floats({rows, cols}, 0.3f, random));
      case Weights::kQ4_1:
        return add(name, RandomTensor::gguf(Storage::kGgufQ4_1, rows, cols, Fill::kRandom, random));
      case Weights::kQ8_0:
        return add(name, RandomTensor::gguf(Storage::kGgufQ8_0, rows, cols, Fill::kRandom, random, -9));
      case Weights::kGroups: {
        // Every linear in another format, groups of 16, 32 and 64.
        const std::vector<bidtrie::WeightFormat> formats =
            quantized_formats(std::size_t{16} << held.size() % 3);
        const auto& format = formats[held.size() % formats.size()];
        const int exponent = format.codes == bidtrie::Codes::kInt8 ? -9 : -6;
        return add(name, RandomTensor::groups(format, rows, cols, Fill::kRandom, random, exponent));
      }
    }
  }

  Engine engine(int threads, const std::string& instructions, bool dequantize = false) {
    return Engine(config, tensors,
                  EngineOptions{threads, 64, 40, dequantize, weights_ != Weights::kFloat32, instructions});
  }

 private:
  Weights weights_;
};

StepOutput step(Engine& engine, const Ints& tokens, std::int32_t sequence, const Ints& parents,
                const Ints& wanted) {
  const Ints sequences(tokens.size(), sequence);
  const std::vector<std::uint8_t> sums(wanted.size(), 1);
  return engine.step({tokens, sequences, parents, wanted, {}, {}, sums});
}

/// Whole rows of logits for the last token of a chain that is fed in pieces.
std::vector<float> chain_logits(Engine& engine, const Ints& tokens, std::size_t piece) {
  const std::int32_t sequence = engine.open({}, {});
  StepOutput output;
  for (std::size_t at = 0; at < tokens.size(); at += piece) {
    const std::size_t size = std::min(piece, tokens.size() - at);
    Ints parents;
    for (std::size_t i = 0; i < size; ++i) parents.push_back(static_cast<std::int32_t>(i) - 1);
    const Ints part(tokens.begin() + static_cast<long>(at), tokens.begin() + static_cast<long>(at + size));
    output = step(engine, part, sequence, parents, {static_cast<std::int32_t>(size) - 1});
    engine.commit(sequence, output.nodes);
  }
  engine.close(sequence);
  std::vector<float> row(output.logits.get(), output.logits.get() + output.offsets.back());
  row.push_back(output.logsumexp[0]);
  return row;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), same_bits);
}

void check_invariance(Weights weights, bool odd) {
  TinyModel model(weights, odd);
  const Ints tokens{3, 14, 15, 9, 26, 5, 35, 8, 79, 32, 38, 46, 26};
  std::vector<float> expected;
  for (const std::string& instructions : bidtrie::instruction_sets()) {
    for (const int threads : {1, 2, 3}) {
      Engine engine = model.engine(threads, instructions);
      for (const std::size_t piece : {1, 2, 5, 13}) {
        const std::vector<float> row = chain_logits(engine, tokens, piece);
        if (expected.empty()) expected = row;
        CHECK(same(row, expected));
      }
      CHECK(engine.free_slots() == 64);

      // The same chain inside a bushy batch beside another sequence, with the last node under a kept one.
      const std::int32_t other = engine.open({}, {}), sequence = engine.open({}, {});
      Ints batch, sequences, parents;
      std::int32_t chain = kPrefixEnd;
      for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
        batch.insert(batch.end(), {50, tokens[i], 60});
        sequences.insert(sequences.end(), {other, sequence, sequence});
        parents.insert(parents.end(), {kPrefixEnd, chain, chain});
        chain = static_cast<std::int32_t>(batch.size()) - 2;
      }
      const StepOutput first = engine.step({batch, sequences, parents, {}, {}, {}, {}});
      const Ints kept{first.nodes[static_cast<std::size_t>(chain)]};
      engine.keep(kept);
      const StepOutput last = step(engine, {1, tokens.back(), 2}, sequence,
                                   {kPrefixEnd, bidtrie::kept_parent(kept[0]), kPrefixEnd}, {1, 0, 1});
      std::vector<float> row(last.logits.get() + last.offsets[2], last.logits.get() + last.offsets[3]);
      row.push_back(last.logsumexp[2]);
      CHECK(same(row, expected));
      CHECK(std::memcmp(last.logits.get(), row.data(), model.config.vocab_size * sizeof(float)) == 0);

      // Candidates, with and without the sum over everything.
      const Ints one_token{tokens.back()}, one_sequence{sequence}, under{bidtrie::kept_parent(kept[0])},
          wanted{0, 0};
      const Ints offsets{0, 3, 5}, ids{82, 0, 17, 5, 5};
      const std::vector<std::uint8_t> sums{0, 1};
      const StepOutput some = engine.step({one_token, one_sequence, under, wanted, offsets, ids, sums});
      CHECK(some.offsets.back() == 5);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        CHECK(same_bits(some.logits[i], expected[static_cast<std::size_t>(ids[i])]));
      }
      CHECK(std::isnan(some.logsumexp[0]) && same_bits(some.logsumexp[1], expected.back()));
      engine.release(kept);
      engine.close(other);
      engine.close(sequence);
      CHECK(engine.free_slots() == 64);
    }
  }
  double sum = 0;
  for (std::size_t i = 0; i + 1 < expected.size(); ++i) sum += std::exp(static_cast<double>(expected[i]));
  CHECK(std::abs(std::log(sum) - static_cast<double>(expected.back())) < 1e-5);

  // A negative control: another token in the chain must show.
  Engine engine = model.engine(1, "");
  Ints changed = tokens;
  changed[0] = 4;
  CHECK(!same(chain_logits(engine, changed, 5), expected));
}

/// Many rows: more than go through the head at once, and more wanted rows than nodes.
void check_many_rows() {
  TinyModel model(Weights::kQ4_1, false);
  Engine engine = model.engine(2, "");
  const std::int32_t sequence = engine.open({}, {});
  Ints tokens, parents, wanted;
  for (std::int32_t i = 0; i < 40; ++i)
    tokens.push_back(i), parents.push_back(kPrefixEnd), wanted.push_back(i);
  for (std::int32_t i = 39; i >= 0; --i) wanted.push_back(i);
  const StepOutput output = step(engine, tokens, sequence, parents, wanted);
  const std::size_t vocabulary = model.config.vocab_size;
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(std::memcmp(&output.logits[i * vocabulary], &output.logits[(79 - i) * vocabulary],
                      vocabulary * 4) == 0);
    CHECK(same_bits(output.logsumexp[i], output.logsumexp[79 - i]));
    CHECK(
        same_bits(output.logits[i * vocabulary], chain_logits(engine, {static_cast<std::int32_t>(i)}, 1)[0]));
  }
}

void check_errors() {
  TinyModel model(Weights::kFloat32, true);
  const auto without = [&](const std::string& name) {
    TensorSources tensors = model.tensors;
    tensors.erase(name);
    return Engine(model.config, tensors, EngineOptions{1, 8, 8, false, false, ""});
  };
  CHECK_THROWS(bidtrie::ModelError, "model.layers.1.mlp.up_proj.weight: missing",
               without("model.layers.1.mlp.up_proj.weight"));
  CHECK_THROWS(bidtrie::ModelError, "k_norm", without("model.layers.0.self_attn.k_norm.weight"));
  const auto with = [&](auto change) {
    TinyModel other(Weights::kFloat32, true);
    change(other);
    return other.engine(1, "");
  };
  CHECK_THROWS(bidtrie::ModelError, "model.norm.weight: shape [37], expected [36]",
               with([](TinyModel& m) { m.tensors["model.norm.weight"].shape = {37}; }));
  CHECK_THROWS(bidtrie::ModelError, "model.norm.weight: 140 bytes, expected 144", with([](TinyModel& m) {
                 m.tensors["model.norm.weight"].data = m.tensors["model.norm.weight"].data.first(140);
               }));
  CHECK_THROWS(bidtrie::ModelError, "head_dim", with([](TinyModel& m) { m.config.head_dim = 9; }));
  CHECK_THROWS(bidtrie::ModelError, "multiple of num_kv_heads",
               with([](TinyModel& m) { m.config.num_kv_heads = 3; }));
  CHECK_THROWS(bidtrie::ModelError, "inv_freq", with([](TinyModel& m) { m.config.inv_freq.pop_back(); }));
  CHECK_THROWS(bidtrie::ModelError, "sizes",
               with([](TinyModel& m) { m.config.vocab_size = std::size_t{1} << 40; }));
  CHECK_THROWS(bidtrie::EngineError, "threads", model.engine(0, ""));
  CHECK_THROWS(bidtrie::EngineError, "instruction set", model.engine(1, "mmx"));
}

void check_shutdown() {
  TinyModel model(Weights::kQ8_0, false);
  Engine engine = model.engine(2, "");
  CHECK(engine.open({}, {}) == 0);
  engine.shutdown();
  engine.shutdown();
  CHECK_THROWS(bidtrie::EngineError, "shut down", engine.open({}, {}));
}

}  // namespace

int main() {
  check_invariance(Weights::kFloat32, true);
  check_invariance(Weights::kFloat32, false);
  check_invariance(Weights::kQ4_1, false);
  check_invariance(Weights::kQ8_0, false);
  check_invariance(Weights::kGroups, false);
  check_invariance(Weights::kGroups, true);
  check_many_rows();
  check_errors();
  check_shutdown();
}
