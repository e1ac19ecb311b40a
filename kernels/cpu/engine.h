#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>

#include "bidtrie/tree_batch.h"
#include "forward.h"
#include "kv_tree.h"
#include "model.h"

namespace bidtrie {

struct EngineOptions {
  int threads;  // the caller's included
  std::size_t slots;
  std::size_t max_nodes;
  bool dequantize;                // compute in float32 whatever the checkpoint holds
  bool half_kv;                   // keep keys and values as float16
  std::string_view instructions;  // empty: the best that the CPU has
};

/// bidtrie.engine.base.Engine for Llama-family models on the CPU. Calls from several threads wait for each
/// other.
class Engine {
 public:
  Engine(const ModelConfig& config, const TensorSources& tensors, const EngineOptions& options);

  std::int32_t open(std::optional<std::int32_t> share, std::optional<std::int64_t> length);
  void close(std::int32_t sequence);
  std::size_t length(std::int32_t sequence);
  StepOutput step(const TreeBatch& batch);
  void commit(std::int32_t sequence, std::span<const std::int32_t> nodes);
  void keep(std::span<const std::int32_t> nodes);
  void release(std::span<const std::int32_t> nodes);
  std::size_t free_slots();

  /// Stop the threads and free the memory: every later call throws EngineError.
  void shutdown();

  const char* instruction_set() const { return kernels_.name; }

 private:
  struct State {
    State(const ModelConfig& config, const TensorSources& tensors, const EngineOptions& options,
          const Kernels& kernels);

    Model model;
    KvTree tree;
    Forward forward;
  };

  State& state();

  const Kernels& kernels_;
  std::mutex mutex_;
  std::unique_ptr<State> state_;  // none after shutdown
};

}  // namespace bidtrie
