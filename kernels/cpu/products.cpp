#include "products.h"

#include <algorithm>

#include "activations.h"
#include "bidtrie/error.h"

namespace bidtrie {
namespace {

struct Range {
  std::size_t begin, end;
};

Range share(std::size_t count, int thread, int threads) {
  const auto t = static_cast<std::size_t>(thread), all = static_cast<std::size_t>(threads);
  return {count * t / all, count * (t + 1) / all};
}

/// Take whole panels of the inputs, rounded where the matrix wants them so.
void take_inputs(const Kernels& kernels, const Matrix& matrix, const float* x, std::size_t nodes,
                 Range panels, ActivationRows& inputs) {
  for (std::size_t n = panels.begin * kPanel; n < std::min(panels.end * kPanel, nodes); ++n) {
    std::copy_n(x + n * matrix.cols(), matrix.cols(), inputs.values(n));
    if (matrix.is_quantized())
      kernels.quantize(inputs.values(n), inputs.blocks(), inputs.block(n, 0), n % kPanel);
  }
}

}  // namespace

void linear(const Kernels& kernels, ThreadTeam& team, const Matrix& matrix, const float* x, std::size_t nodes,
            float* out) {
  ActivationRows inputs(nodes, matrix.cols());
  auto work = [&](int thread) noexcept {
    take_inputs(kernels, matrix, x, nodes, share(ceil_div(nodes, kPanel), thread, team.size()), inputs);
    team.barrier();
    const Range tiles = share(ceil_div(matrix.rows(), kTileRows), thread, team.size());
    const std::size_t begin = tiles.begin * kTileRows, end = std::min(tiles.end * kTileRows, matrix.rows());
    if (begin < end)
      kernels.linear(matrix.view(), begin, end, inputs.view(), nodes, out, matrix.rows(), nullptr, false);
  };
  if (nodes > 0) team.run(work);
}

void candidates(const Kernels& kernels, ThreadTeam& team, const Matrix& matrix, const float* x,
                std::size_t nodes, std::span<const std::int32_t> offsets, std::span<const std::int32_t> ids,
                float* out) {
  if (offsets.size() != nodes + 1 || offsets.front() != 0 ||
      !std::is_sorted(offsets.begin(), offsets.end()) ||
      static_cast<std::size_t>(offsets.back()) != ids.size()) {
    throw EngineError(message("offsets: expected ", nodes + 1, " that rise from 0 to ", ids.size()));
  }
  for (const std::int32_t id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= matrix.rows())
      throw EngineError(message("ids: row ", id, ", expected 0 to ", matrix.rows() - 1));
  }
  ActivationRows inputs(nodes, matrix.cols());
  auto work = [&](int thread) noexcept {
    take_inputs(kernels, matrix, x, nodes, share(ceil_div(nodes, kPanel), thread, team.size()), inputs);
    team.barrier();
    for (std::size_t n = 0; n < nodes; ++n) {
      const auto first = static_cast<std::size_t>(offsets[n]),
                 last = static_cast<std::size_t>(offsets[n + 1]);
      const Range mine = share(last - first, thread, team.size());
      if (mine.begin == mine.end) continue;
      kernels.rows(matrix.view(), ids.data() + first + mine.begin, mine.end - mine.begin, inputs.view(n),
                   out + first + mine.begin, nullptr);
    }
  };
  if (nodes > 0) team.run(work);
}

}  // namespace bidtrie
