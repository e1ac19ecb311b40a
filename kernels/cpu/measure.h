#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "activations.h"
#include "kernels.h"
#include "matrix.h"
#include "thread_team.h"

// What benchmarks ask: what this machine can do, and how near a kernel comes to it.

namespace bidtrie {

/// Bytes a second that `threads` threads read from a buffer of `bytes`, one figure a pass over it.
std::vector<double> read_bandwidth(const Kernels& kernels, std::size_t bytes, int threads, int passes);

/// Multiply-adds a second of the instruction set's multiply-add instruction alone, on `threads` threads.
double multiply_add_peak(const Kernels& kernels, int threads, double seconds);

/// The linears of a model without what lies between them: all of one input length share their inputs.
class LinearStack {
 public:
  void add(const TensorSource& source);

  std::size_t bytes() const;
  std::uint64_t weights() const;

  /// Seconds of `passes` passes over all linears, in order, for `nodes` nodes; a barrier behind each.
  std::vector<double> time(const Kernels& kernels, std::size_t nodes, int threads, int passes) const;

 private:
  Arena arena_;
  std::vector<Matrix> matrices_;
};

}  // namespace bidtrie
