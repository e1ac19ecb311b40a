#include "engine.h"

#include <limits>

#include "bidtrie/error.h"
#include "instruction_set.h"

namespace bidtrie {
namespace {

const EngineOptions& checked(const EngineOptions& options) {
  if (options.threads < 1 || options.threads > 1024) {
    throw EngineError(message("threads: ", options.threads, ", expected 1 to 1024"));
  }
  constexpr std::size_t kMost = std::numeric_limits<std::int32_t>::max();
  if (options.slots < 1 || options.slots > kMost) {
    throw EngineError(message("slots: ", options.slots, ", expected 1 to ", kMost));
  }
  if (options.max_nodes < 1 || options.max_nodes > (std::size_t{1} << 20)) {
    throw EngineError(message("max_nodes: ", options.max_nodes, ", expected 1 to ", std::size_t{1} << 20));
  }
  return options;
}

/// The output of a checked batch, its arrays allocated.
StepOutput output_for(const TreeBatch& batch, std::size_t vocabulary) {
  StepOutput output;
  output.offsets.assign(batch.rows() + 1, 0);
  for (std::size_t r = 0; r < batch.rows(); ++r) {
    std::int64_t size = 0;
    if (!batch.candidate_offsets.empty()) size = batch.candidate_offsets[r + 1] - batch.candidate_offsets[r];
    if (size == 0) size = static_cast<std::int64_t>(vocabulary);
    output.offsets[r + 1] = output.offsets[r] + size;
  }
  output.logits = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(output.offsets.back()));
  output.logsumexp.assign(batch.rows(), std::numeric_limits<float>::quiet_NaN());
  return output;
}

}  // namespace

Engine::State::State(const ModelConfig& config, const TensorSources& tensors, const EngineOptions& options,
                     const Kernels& kernels)
    : model(config, tensors, options.dequantize),
      tree(config.vocab_size, config.context_length, options.slots, options.max_nodes),
      forward(model, kernels, options.threads, options.slots, options.max_nodes, options.half_kv) {}

Engine::Engine(const ModelConfig& config, const TensorSources& tensors, const EngineOptions& options)
    : kernels_(kernels_for(checked(options).instructions)),
      state_(std::make_unique<State>(config, tensors, options, kernels_)) {}

Engine::State& Engine::state() {
  if (!state_) throw EngineError("the engine has been shut down");
  return *state_;
}

std::int32_t Engine::open(std::optional<std::int32_t> share, std::optional<std::int64_t> length) {
  const std::lock_guard lock(mutex_);
  return state().tree.open(share, length);
}

void Engine::close(std::int32_t sequence) {
  const std::lock_guard lock(mutex_);
  state().tree.close(sequence);
}

std::size_t Engine::length(std::int32_t sequence) {
  const std::lock_guard lock(mutex_);
  return state().tree.length(sequence);
}

StepOutput Engine::step(const TreeBatch& batch) {
  const std::lock_guard lock(mutex_);
  State& state = this->state();
  state.tree.check(batch);
  StepOutput output = output_for(batch, state.model.config.vocab_size);
  StepPlan plan = state.tree.step(batch);
  state.forward.run(batch, plan, output);
  output.nodes = std::move(plan.handles);
  return output;
}

void Engine::commit(std::int32_t sequence, std::span<const std::int32_t> nodes) {
  const std::lock_guard lock(mutex_);
  state().tree.commit(sequence, nodes);
}

void Engine::keep(std::span<const std::int32_t> nodes) {
  const std::lock_guard lock(mutex_);
  state().tree.keep(nodes);
}

void Engine::release(std::span<const std::int32_t> nodes) {
  const std::lock_guard lock(mutex_);
  state().tree.release(nodes);
}

std::size_t Engine::free_slots() {
  const std::lock_guard lock(mutex_);
  return state().tree.free_slots();
}

void Engine::shutdown() {
  const std::lock_guard lock(mutex_);
  state_.reset();
}

}  // namespace bidtrie
