// The GPU's linears in the emulator: right within the bounds of their arithmetic for every format, shape and
// way to cut the work; the same bits whatever else is in a call; as many bytes as must be.

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "bidtrie/weights_gpu.h"
#include "check.h"
#include "cuda/decode.cuh"
#include "cuda/linear.h"
#include "emulator/launch.h"
#include "instruction_set.h"
#include "kernels.h"
#include "random_tensor.h"

namespace {

using namespace bidtrie;
using cuda::Bfloat16, cuda::Float16;
using emulator::Buffer;

std::mt19937 random_source(20);

/// A matrix packed for both engines, and as numbers.
class Matrices {
 public:
  Matrices(const WeightFormat& format, std::size_t rows, std::size_t cols)
      : tensor_(RandomTensor::groups(format, rows, cols, Fill::kRandom, random_source)),
        cpu_("weight", tensor_.source(), false, arena_) {
    const TensorSource source = tensor_.source();
    packed_.resize(gpu::packed_bytes(format, rows, cols));
    const auto halves = [](std::span<const std::uint8_t> bytes) {
      std::vector<std::uint16_t> out(bytes.size() / 2);
      if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
      return out;
    };
    const auto scales = halves(source.scales), minima = halves(source.minimums);
    const gpu::PackError error = gpu::pack(
        {format, rows, cols, source.data.data(), scales.data(), minima.data(), source.positions.data()},
        packed_.data());
    CHECK(error == gpu::PackError::kNone);
    // |scale * code| + |minimum| or |weight|: the sizes of what is added up.
    weights_.resize(rows * cols);
    sizes_.resize(rows * cols);
    std::vector<float> row(cols);
    for (std::size_t r = 0; r < rows; ++r) {
      cpu_.unpack_row(r, row.data());
      for (std::size_t c = 0; c < cols; ++c) {
        const double lowest =
            minima.empty() ? 0 : half_to_float(minima[r * gpu::groups(format, cols) + c / format.group]);
        weights_[r * cols + c] = row[c];
        sizes_[r * cols + c] = std::abs(row[c] - lowest) + std::abs(lowest);
      }
    }
  }

  const WeightFormat& format() const { return cpu_.view().format; }
  std::size_t rows() const { return cpu_.rows(); }
  std::size_t cols() const { return cpu_.cols(); }
  const MatrixView& cpu() const { return cpu_.view(); }
  CodeTable table() const { return tensor_.source().table; }
  double weight(std::size_t r, std::size_t c) const { return weights_[r * cols() + c]; }
  double size(std::size_t r, std::size_t c) const { return sizes_[r * cols() + c]; }
  std::vector<std::uint8_t>& packed() { return packed_; }

 private:
  Arena arena_;
  RandomTensor tensor_;
  Matrix cpu_;
  std::vector<std::uint8_t> packed_;
  std::vector<double> weights_, sizes_;
};

template <class T>
constexpr cuda::Float type_of() {
  return std::is_same_v<T, Float16> ? cuda::Float::kFloat16 : cuda::Float::kBfloat16;
}

/// Activations whose rounding to 8 bits in blocks of 32 is exact: multiples of 1/64 up to 127/64, which
/// occurs.
std::vector<float> activations(std::size_t nodes, std::size_t cols) {
  std::vector<float> x(nodes * cols);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(static_cast<int>(random_source() % 255) - 127) / 64;
    if (i % cols % 32 == 7) x[i] = 127.0f / 64;
  }
  return x;
}

/// What the kernel answers, float32 [nodes, rows].
template <class T>
std::vector<float> run(Matrices& m, const std::vector<float>& x, std::size_t nodes,
                       const std::vector<float>& bias, cuda::LinearPlan plan, bool float_out = true,
                       std::size_t spare = 8) {
  const std::size_t stride = round_up(m.cols(), 8) + spare, out_stride = m.rows() + 3;
  std::vector<T> rows(nodes * stride, cuda::from_float<T>(1e30f)), short_bias(m.rows());
  for (std::size_t n = 0; n < nodes; ++n) {
    for (std::size_t c = 0; c < m.cols(); ++c)
      rows[n * stride + c] = cuda::from_float<T>(x[n * m.cols() + c]);
  }
  for (std::size_t r = 0; r < m.rows(); ++r) short_bias[r] = cuda::from_float<T>(bias[r]);
  Buffer<std::uint8_t> weights(m.packed(), "weights");
  Buffer<T> inputs(rows, "x"), biases(short_bias, "bias");
  Buffer<std::uint32_t> counters(std::vector<std::uint32_t>(
      std::max<std::size_t>(cuda::linear_counters(m.format(), m.rows(), nodes, plan), 1)));
  Buffer<float> partials(std::max<std::size_t>(cuda::linear_partials(m.format(), m.rows(), nodes, plan), 1));
  Buffer<float> wide(float_out ? nodes * out_stride : 1, "out");
  Buffer<T> narrow(float_out ? 1 : nodes * out_stride, "out");
  cuda::Linear a{};
  a.format = m.format();
  a.rows = m.rows();
  a.cols = m.cols();
  a.weights = weights.get();
  a.table = m.table();
  a.type = type_of<T>();
  a.x = inputs.get();
  a.x_stride = stride;
  a.nodes = nodes;
  a.bias = biases.get();
  a.out = float_out ? static_cast<void*>(wide.get()) : static_cast<void*>(narrow.get());
  a.out_stride = out_stride;
  a.float_out = float_out;
  a.plan = plan;
  a.counters = counters.get();
  a.partials = partials.get();
  CHECK(cuda::linear(a, nullptr) == cudaSuccess);
  for (const std::uint32_t count : counters.read()) CHECK(count == 0);  // ready for the next launch
  std::vector<float> out(nodes * m.rows());
  // Columns behind the rows were never written: copied one by one.
  for (std::size_t n = 0; n < nodes; ++n) {
    if (float_out) {
      wide.read(n * out_stride, std::span(out).subspan(n * m.rows(), m.rows()));
    } else {
      std::vector<T> row(m.rows());
      narrow.read(n * out_stride, std::span(row));
      for (std::size_t r = 0; r < m.rows(); ++r) out[n * m.rows() + r] = cuda::to_float(row[r]);
    }
  }
  return out;
}

/// The largest error as a part of what float32 sums may lose.
template <class T>
double error_of_bound(const Matrices& m, const std::vector<float>& x, std::size_t nodes,
                      const std::vector<float>& bias, const std::vector<float>& out) {
  double largest = 0;
  for (std::size_t n = 0; n < nodes; ++n) {
    for (std::size_t r = 0; r < m.rows(); ++r) {
      const double b = cuda::to_float(cuda::from_float<T>(bias[r]));
      double exact = b, size = std::abs(b);
      for (std::size_t c = 0; c < m.cols(); ++c) {
        exact += m.weight(r, c) * x[n * m.cols() + c];
        size += m.size(r, c) * std::abs(x[n * m.cols() + c]);
      }
      // The emulator's products of 16 columns are rounded once; so is each that joins a sum.
      const double bound = (static_cast<double>(m.cols()) / 8 + 32) * std::ldexp(1, -24) * size + 1e-30;
      largest = std::max(largest, std::abs(out[n * m.rows() + r] - exact) / bound);
    }
  }
  return largest;
}

std::vector<float> random_bias(std::size_t rows) {
  std::normal_distribution<float> normal;
  std::vector<float> bias(rows);
  for (float& b : bias) b = normal(random_source);
  return bias;
}

/// The CPU engine's product of the same matrix.
std::vector<float> cpu_linear(const Matrices& m, const std::vector<float>& x, std::size_t nodes,
                              const std::vector<float>& bias) {
  const Kernels& kernels = portable_kernels();
  ActivationRows inputs(nodes, m.cols());
  for (std::size_t n = 0; n < nodes; ++n) {
    std::copy_n(&x[n * m.cols()], m.cols(), inputs.values(n));
    kernels.quantize(inputs.values(n), inputs.blocks(), inputs.block(n, 0), n % kPanel);
  }
  std::vector<float> out(nodes * m.rows());
  kernels.linear(m.cpu(), 0, m.rows(), inputs.view(), nodes, out.data(), m.rows(), bias.data(), false);
  return out;
}

template <class T>
void check_case(Matrices& m, std::size_t nodes, cuda::LinearPlan plan) {
  const std::vector<float> x = activations(nodes, m.cols());
  std::vector<float> bias = random_bias(m.rows());
  for (float& b : bias) b = cuda::to_float(cuda::from_float<T>(b));
  const std::vector<float> out = run<T>(m, x, nodes, bias, plan);
  CHECK(error_of_bound<T>(m, x, nodes, bias, out) <= 1);
  // The CPU's kernels are within the same bound of the same numbers.
  CHECK(error_of_bound<T>(m, x, nodes, bias, cpu_linear(m, x, nodes, bias)) <= 1);
  // Outputs of 16 bits are these, rounded.
  const std::vector<float> rounded = run<T>(m, x, nodes, bias, plan, false);
  for (std::size_t i = 0; i < out.size(); ++i) {
    CHECK(same_bits(rounded[i], cuda::to_float(cuda::from_float<T>(out[i]))));
  }
}

/// All 8-bit codes, at every place of the words that hold them.
template <class T>
void bytes_are_decoded() {
  for (std::uint32_t first = 0; first < 256; ++first) {
    std::uint8_t bytes[8];
    std::uint32_t words[2], a[4];
    for (std::uint32_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::uint8_t>(first + 37 * i);
    std::memcpy(words, bytes, sizeof words);
    cuda::decode_bytes<T>(words[0], words[1], a);
    for (std::uint32_t i = 0; i < 4; ++i) {
      for (std::uint32_t high = 0; high < 2; ++high) {
        const float code = cuda::to_float(T{static_cast<std::uint16_t>(a[i] >> 16 * high)});
        CHECK(code == static_cast<float>(bytes[4 * (i / 2) + i % 2 + 2 * high]) - 128);
      }
    }
  }
}

std::vector<WeightFormat> formats(std::size_t group) {
  std::vector<WeightFormat> out = quantized_formats(group);
  for (const WeightFormat& format : out) CHECK(gpu::is_packable(format));
  return out;
}

void linears_are_right() {
  // One column of 16, short tiles, short groups, more rows than a tile.
  const std::vector<std::pair<std::size_t, std::size_t>> shapes = {{1, 16}, {33, 48}, {20, 176}, {48, 576}};
  const std::vector<std::size_t> few = {1, 3, 8, 9, 16}, many = {17, 64, 70};
  std::size_t at = 0;
  for (const std::size_t group : {16u, 32u, 64u, 96u, 128u, 256u}) {
    for (const WeightFormat& format : formats(group)) {
      for (const auto& [rows, cols] : shapes) {
        Matrices m(format, rows, cols);
        const auto plan = [&](std::size_t nodes) { return cuda::linear_plan(format, rows, cols, nodes, 4); };
        ++at;
        const std::size_t nodes = few[at % few.size()], more = many[at % many.size()];
        if (at % 2 == 0) {
          check_case<Float16>(m, nodes, plan(nodes));
        } else {
          check_case<Bfloat16>(m, nodes, plan(nodes));
        }
        if (cols == 176) check_case<Bfloat16>(m, more, plan(more));
      }
    }
  }
}

void up_to_128_nodes() {
  for (const Codes codes : {Codes::kInt8, Codes::kInt4Min}) {
    Matrices m({codes, Pattern::kDense, 32}, 130, 320);
    for (const std::size_t nodes : {1u, 16u, 17u, 65u, 128u}) {
      check_case<Float16>(m, nodes, cuda::linear_plan(m.format(), 130, 320, nodes, 4));
    }
  }
}

void however_the_work_is_cut() {
  for (const WeightFormat& format : {WeightFormat{Codes::kInt8, Pattern::kDense, 64},
                                     {Codes::kInt4, Pattern::kDense, 64},
                                     {Codes::kInt4, Pattern::k2of4, 64},
                                     {Codes::kInt4, Pattern::k1of4, 64}}) {
    Matrices m(format, 40, 1040);
    for (const cuda::LinearPlan plan :
         {cuda::LinearPlan{1, 1}, {2, 1}, {4, 1}, {8, 1}, {8, 2}, {8, 3}, {8, 17}}) {
      for (const std::size_t nodes : {1u, 12u, 33u}) {
        for (std::uint64_t seed = 0; seed < 2; ++seed) {
          emulator::set_order(seed);
          check_case<Bfloat16>(m, nodes, plan);
        }
      }
    }
  }
}

void bits_depend_on_the_matrix_alone() {
  for (const WeightFormat& format : formats(64)) {
    Matrices m(format, 24, 640);
    const std::vector<float> bias = random_bias(24), x = activations(70, 640);
    for (const std::size_t base : {1u, 17u}) {
      const cuda::LinearPlan plan{8, 2};
      const auto alone = run<Float16>(m, x, base, bias, plan);
      for (const std::size_t nodes : {2u, 8u, 16u, 18u, 70u}) {
        if (cuda::takes_few(format, nodes) != cuda::takes_few(format, base)) continue;
        const auto together = run<Float16>(m, x, nodes, bias, plan, true, 16);
        for (std::size_t r = 0; r < 24; ++r) CHECK(same_bits(alone[r], together[r]));
      }
    }
  }
}

void wrong_weights_are_found() {
  for (const WeightFormat& format : formats(32)) {
    Matrices m(format, 16, 256);
    const std::vector<float> bias = random_bias(16), x = activations(4, 256);
    // One code, one scale, one position of many.
    std::vector<std::size_t> places = {gpu::scales_bytes(format, 256) + 17, 4};
    if (format.pattern == Pattern::k1of4) places.push_back(gpu::scales_bytes(format, 256) + 130);
    for (const std::size_t place : places) {
      m.packed()[place] ^= 0x11;
      CHECK(error_of_bound<Float16>(m, x, 4, bias, run<Float16>(m, x, 4, bias, {8, 1})) > 1);
      m.packed()[place] ^= 0x11;
    }
    CHECK(error_of_bound<Float16>(m, x, 4, bias, run<Float16>(m, x, 4, bias, {8, 1})) <= 1);
  }
}

void bad_matrices_are_refused() {
  std::vector<std::uint8_t> bytes(4096), out(8192);
  std::vector<std::uint16_t> scales(64);
  const auto pack = [&](const WeightFormat& format, std::size_t cols) {
    return gpu::pack({format, 16, cols, bytes.data(), scales.data(), scales.data(), bytes.data()},
                     out.data());
  };
  CHECK(pack({Codes::kFloat32, Pattern::kDense, 0}, 64) == gpu::PackError::kFormat);
  CHECK(pack({Codes::kInt8, Pattern::k2of4, 32}, 64) == gpu::PackError::kFormat);
  CHECK(pack({Codes::kInt4, Pattern::kDense, 48}, 64) == gpu::PackError::kFormat);
  CHECK(pack({Codes::kInt4, Pattern::kDense, 32}, 40) == gpu::PackError::kColumns);
  CHECK(pack({Codes::kInt4, Pattern::k2of4, 32}, 64) == gpu::PackError::kPositions);  // 0 and 0
}

void bytes_are_near_the_minimum() {
  // Of SmolLM2-135M's and of larger models' linears: codes, positions and scales, each once.
  const std::vector<std::pair<std::size_t, std::size_t>> shapes = {{64, 576}, {32, 1536}, {16, 4096}};
  for (const std::size_t group : {32u, 64u, 128u}) {
    for (const WeightFormat& format : formats(group)) {
      for (const auto& [rows, cols] : shapes) {
        Matrices m(format, rows, cols);
        const std::vector<float> x = activations(1, cols), bias = random_bias(rows);
        run<Float16>(m, x, 1, bias, cuda::linear_plan(format, rows, cols, 1, 4));
        const emulator::Moved& weights = emulator::last_traffic()[emulator::Way::kLoadOnce];
        const std::size_t kept = kept_of_four(format.pattern);
        const double code_bits = format.codes == Codes::kInt8 ? 8 : format.pattern == Pattern::kDense ? 4 : 6;
        const double bits = static_cast<double>(kept) * code_bits / 4 +
                            (format.codes == Codes::kInt4Min ? 32.0 : 16.0) / static_cast<double>(group);
        const double least = static_cast<double>(rows * cols) * bits / 8;
        // What memory must give; and what is asked for, where two tiles share a group's scales.
        CHECK(static_cast<double>(weights.unique) <= 1.05 * least);
        CHECK(static_cast<double>(weights.moved()) <= (group == 128 ? 1.08 : 1.05) * least);
        CHECK(static_cast<double>(weights.unique) >= 0.99 * least);
      }
    }
  }
}

}  // namespace

int main() {
  bytes_are_decoded<Float16>();
  bytes_are_decoded<Bfloat16>();
  linears_are_right();
  up_to_128_nodes();
  however_the_work_is_cut();
  bits_depend_on_the_matrix_alone();
  wrong_weights_are_found();
  bad_matrices_are_refused();
  bytes_are_near_the_minimum();
}
