#include "measure.h"

#include <atomic>
#include <chrono>
#include <map>

#include "bidtrie/error.h"

namespace bidtrie {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int checked(int threads) {
  if (threads < 1 || threads > 1024) throw EngineError(message("threads: ", threads, ", expected 1 to 1024"));
  return threads;
}

}  // namespace

std::vector<double> read_bandwidth(const Kernels& kernels, std::size_t bytes, int threads, int passes) {
  ThreadTeam team(checked(threads));
  const auto all = static_cast<std::size_t>(threads);
  const std::size_t each = bytes / sizeof(float) / all / 64 * 64;
  Buffer<float> data(each * all);
  std::atomic<float> total{0};  // so that nobody can leave the reading out
  auto read = [&](int thread) noexcept {
    const float sum = kernels.read(data.data() + each * static_cast<std::size_t>(thread), each);
    if (sum != 0.0f) total = sum;
  };
  std::vector<double> rates;
  team.run(read);
  for (int i = 0; i < passes; ++i) {
    const double begin = now();
    team.run(read);
    rates.push_back(static_cast<double>(data.size() * sizeof(float)) / (now() - begin));
  }
  return rates;
}

double multiply_add_peak(const Kernels& kernels, int threads, double seconds) {
  ThreadTeam team(checked(threads));
  std::atomic<std::uint64_t> products{0};
  const double begin = now();
  auto work = [&](int) noexcept {
    while (now() - begin < seconds) products += kernels.multiply_adds(100000);
  };
  team.run(work);
  return static_cast<double>(products) / (now() - begin);
}

void LinearStack::add(const TensorSource& source) {
  matrices_.emplace_back("linear", source, false, arena_);
}

std::size_t LinearStack::bytes() const {
  std::size_t bytes = 0;
  for (const Matrix& matrix : matrices_) bytes += matrix.bytes();
  return bytes;
}

std::uint64_t LinearStack::weights() const {
  std::uint64_t weights = 0;
  for (const Matrix& matrix : matrices_) weights += matrix.rows() * matrix.cols();
  return weights;
}

std::vector<double> LinearStack::time(const Kernels& kernels, std::size_t nodes, int threads,
                                      int passes) const {
  if (nodes < 1 || nodes > 4096) throw EngineError(message("nodes: ", nodes, ", expected 1 to 4096"));
  std::map<std::size_t, ActivationRows> inputs;
  std::size_t rows = 0;
  for (const Matrix& matrix : matrices_) {
    rows = std::max(rows, matrix.rows());
    if (inputs.contains(matrix.cols())) continue;
    ActivationRows& made = inputs.try_emplace(matrix.cols(), nodes, matrix.cols()).first->second;
    for (std::size_t n = 0; n < nodes; ++n) {
      for (std::size_t c = 0; c < matrix.cols(); ++c) {
        made.values(n)[c] = static_cast<float>((c * 7 + n * 13) % 31) - 15.0f;
      }
      kernels.quantize(made.values(n), made.blocks(), made.block(n, 0), n % kPanel);
    }
  }
  Buffer<float> out(nodes * rows);
  ThreadTeam team(checked(threads));
  auto work = [&](int thread) noexcept {
    for (const Matrix& matrix : matrices_) {
      const std::size_t tiles = ceil_div(matrix.rows(), kTileRows), t = static_cast<std::size_t>(thread),
                        all = static_cast<std::size_t>(threads);
      const std::size_t begin = tiles * t / all * kTileRows,
                        end = std::min(tiles * (t + 1) / all * kTileRows, matrix.rows());
      if (begin < end) {
        kernels.linear(matrix.view(), begin, end, inputs.at(matrix.cols()).view(), nodes, out.data(),
                       matrix.rows(), nullptr, false);
      }
      team.barrier();
    }
  };
  std::vector<double> seconds;
  team.run(work);
  for (int i = 0; i < passes; ++i) {
    const double begin = now();
    team.run(work);
    seconds.push_back(now() - begin);
  }
  return seconds;
}

}  // namespace bidtrie
