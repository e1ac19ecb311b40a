// Kernels of every instruction set against float64, and against each other to the bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "bidtrie/error.h"
#include "bidtrie/weights_q4.h"
#include "bidtrie/weights_q8.h"
#include "check.h"
#include "forward.h"
#include "instruction_set.h"
#include "matrix.h"

namespace {

using bidtrie::ActivationRows;
using bidtrie::Kernels;
using bidtrie::Matrix;
using bidtrie::WeightFormat;

std::mt19937 random_source(1);

float uniform(float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(random_source);
}

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> all;
  for (const std::string& name : bidtrie::instruction_sets()) all.push_back(&bidtrie::kernels_for(name));
  return all;
}

enum class Case { kRandom, kExtreme, kZero };

/// A GGUF tensor, or floats, of a matrix; extreme: the codes that come closest to overflowing 16-bit sums.
std::vector<std::uint8_t> source_of(WeightFormat format, std::size_t rows, std::size_t cols, Case kind) {
  if (format == WeightFormat::kFloat32) {
    std::vector<float> values(rows * cols);
    for (float& value : values) value = kind == Case::kZero ? 0.0f : uniform(-1, 1);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(values.data());
    return {bytes, bytes + values.size() * sizeof(float)};
  }
  const bool is_q4 = format == WeightFormat::kQ4;
  const std::size_t group = is_q4 ? bidtrie::q4::kGgufGroupBytes : bidtrie::q8::kGgufGroupBytes;
  std::vector<std::uint8_t> bytes(rows * cols / bidtrie::kGroup * group);
  for (std::uint8_t& byte : bytes) {
    byte = static_cast<std::uint8_t>(random_source());
    if (kind == Case::kExtreme) byte = is_q4 ? 0xff : 0x80;
    if (kind == Case::kZero) byte = 0;
  }
  for (std::size_t at = 0; at < bytes.size(); at += group) {
    // float16 with exponents around 2^-5
    const auto scale = static_cast<std::uint16_t>(0x2800 | (random_source() & 0x83ff));
    const auto min = static_cast<std::uint16_t>(0xac00 | (random_source() & 0x3ff));
    std::memcpy(&bytes[at], &scale, 2);
    if (is_q4) std::memcpy(&bytes[at + 2], &min, 2);
  }
  return bytes;
}

/// Largest difference that a product with these weights and activations may have from float64.
///
/// Quantized: rounding moves an activation by at most scale / 2 and a hair, since scale and code are rounded
/// floats. Every format: each float operation errs by at most 2^-24 of the sum of the terms' magnitudes.
double bound(const Matrix& matrix, const std::vector<float>& row, const float* x) {
  const std::size_t cols = matrix.cols();
  const bool quantized = matrix.format() != WeightFormat::kFloat32;
  double magnitude = 0, rounding = 0;
  for (std::size_t g = 0; g < cols; g += bidtrie::kGroup) {
    double largest = 0, weights = 0;
    for (std::size_t c = g; c < std::min(cols, g + bidtrie::kGroup); ++c) {
      largest = std::max(largest, std::abs(static_cast<double>(x[c])));
      weights += std::abs(static_cast<double>(row[c]));
    }
    // A q4 product is taken apart into codes and minima, which may be larger than the weights.
    magnitude += largest * (quantized ? 2 * weights + 64 : weights);
    rounding += largest < 1e-30 ? largest * weights : largest / 127 / 2 * (1 + 1e-4) * weights;
  }
  const double operations = static_cast<double>(cols) / 8 + 40;
  return (quantized ? rounding : 0) + magnitude * operations * 0x1p-24;
}

void check_linear(WeightFormat format, std::size_t rows, std::size_t cols, std::size_t nodes, Case kind) {
  const std::vector<std::uint8_t> source = source_of(format, rows, cols, kind);
  const Matrix matrix("w", {format, {rows, cols}, source.data(), source.size()}, false);
  const Matrix exact("w", {format, {rows, cols}, source.data(), source.size()}, true);
  std::vector<float> x(nodes * cols), bias(bidtrie::round_up(rows, 8));
  for (float& value : x)
    value = kind == Case::kExtreme ? (random_source() % 2 ? 3.0f : -3.0f) : uniform(-2, 2);
  if (kind == Case::kZero) std::fill_n(x.begin(), cols, 0.0f);
  for (float& value : bias) value = uniform(-1, 1);

  std::vector<std::vector<float>> results;
  for (const Kernels* kernels : all_kernels()) {
    ActivationRows inputs(nodes, cols);
    for (std::size_t n = 0; n < nodes; ++n) {
      std::copy_n(x.data() + n * cols, cols, inputs.values(n));
      if (format != WeightFormat::kFloat32) inputs.quantize(*kernels, n, 0, cols);
    }
    std::vector<float> out(nodes * rows, 1.0f);
    kernels->linear(matrix.view(), 0, rows, inputs.view(), nodes, out.data(), rows, bias.data(), true);

    std::vector<float> row(cols);
    for (std::size_t r = 0; r < rows; ++r) {
      matrix.unpack_row(r, row.data());
      std::vector<float> floats(cols);
      exact.unpack_row(r, floats.data());
      CHECK(std::equal(row.begin(), row.end(), floats.begin(), same_bits));
      for (std::size_t n = 0; n < nodes; ++n) {
        double expected = 1.0 + static_cast<double>(bias[r]);
        for (std::size_t c = 0; c < cols; ++c) {
          expected += static_cast<double>(row[c]) * static_cast<double>(x[n * cols + c]);
        }
        const double error = std::abs(static_cast<double>(out[n * rows + r]) - expected);
        CHECK(error <= bound(matrix, row, x.data() + n * cols) + 4 * 0x1p-24 * (2 + std::abs(expected)));
      }
    }

    // The same rows cut into other pieces, a node at a time, and one by one.
    for (std::size_t n = 0; n < nodes; ++n) {
      std::vector<float> alone(rows, 1.0f), single(rows);
      const std::size_t cut = rows / 16 * 8;
      kernels->linear(matrix.view(), 0, cut, inputs.view(n), 1, alone.data(), rows, bias.data(), true);
      kernels->linear(matrix.view(), cut, rows, inputs.view(n), 1, alone.data(), rows, bias.data(), true);
      std::vector<std::int32_t> ids(rows);
      for (std::size_t r = 0; r < rows; ++r) ids[r] = static_cast<std::int32_t>(rows - 1 - r);
      kernels->rows(matrix.view(), ids.data(), rows, inputs.view(n), single.data(), bias.data());
      for (std::size_t r = 0; r < rows; ++r) {
        CHECK(same_bits(alone[r], out[n * rows + r]));
        CHECK(same_bits(single[rows - 1 - r] + 1.0f, out[n * rows + r]));
      }
    }
    results.push_back(std::move(out));
  }
  for (const auto& result : results)
    CHECK(std::equal(result.begin(), result.end(), results[0].begin(), same_bits));
}

void check_linears() {
  for (const WeightFormat format : {WeightFormat::kFloat32, WeightFormat::kQ4, WeightFormat::kQ8}) {
    for (const std::size_t nodes : {1, 2, 3, 4, 5, 7, 8, 9, 16, 33, 64})
      check_linear(format, 19, 96, nodes, Case::kRandom);
    for (const std::size_t rows : {1, 7, 8, 9, 15, 16, 17, 31, 33, 40, 65}) {
      check_linear(format, rows, 64, 5, Case::kRandom);
    }
    for (const Case kind : {Case::kExtreme, Case::kZero}) check_linear(format, 24, 576, 6, kind);
    check_linear(format, 16, 1536, 3, Case::kRandom);
  }
  for (const std::size_t cols : {1, 5, 8, 13, 100})
    check_linear(WeightFormat::kFloat32, 9, cols, 4, Case::kRandom);
}

void check_quantize() {
  std::vector<float> x(64);
  for (std::size_t i = 0; i < 32; ++i) x[i] = uniform(-5, 5);
  x[3] = -7.0f;
  for (std::size_t i = 32; i < 64; ++i) x[i] = i % 2 ? 1e-31f : -1e-35f;
  for (const Kernels* kernels : all_kernels()) {
    std::int8_t codes[64];
    float scale[2], sum[2];
    kernels->quantize(x.data(), 2, codes, scale, sum);
    CHECK(scale[0] == 7.0f / 127.0f && codes[3] == -127);
    int total = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      total += codes[i];
      CHECK(std::abs(static_cast<float>(codes[i]) * scale[0] - x[i]) <= scale[0] / 2 * 1.0001f);
    }
    CHECK(sum[0] == scale[0] * static_cast<float>(total));
    CHECK(scale[1] == 0 && sum[1] == 0);
    for (std::size_t i = 32; i < 64; ++i) CHECK(codes[i] == 0);
  }
}

void check_rms_norm() {
  for (const std::size_t n : {1, 7, 8, 64, 576, 577}) {
    const std::size_t padded = bidtrie::round_up(n, 8);
    std::vector<float> x(padded), weight(padded), first;
    for (std::size_t i = 0; i < n; ++i) x[i] = uniform(-3, 3), weight[i] = uniform(0, 2);
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
    const double root = std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (const Kernels* kernels : all_kernels()) {
      std::vector<float> out(padded, 9.0f);
      kernels->rms_norm(x.data(), weight.data(), 1e-5f, n, padded, out.data());
      for (std::size_t i = 0; i < padded; ++i) {
        const double expected = static_cast<double>(x[i]) / root * static_cast<double>(weight[i]);
        CHECK(std::abs(static_cast<double>(out[i]) - expected) <= 1e-5 * std::abs(expected));
      }
      if (first.empty()) first = out;
      CHECK(std::equal(out.begin(), out.end(), first.begin(), same_bits));
    }
  }
}

void check_swiglu() {
  std::vector<float> gates, ups;
  for (float g = -120; g <= 120; g += 0.37f) gates.push_back(g), ups.push_back(uniform(-2, 2));
  gates.resize(bidtrie::round_up(gates.size(), 8));
  ups.resize(gates.size());
  std::vector<float> first;
  for (const Kernels* kernels : all_kernels()) {
    std::vector<float> out = gates;
    kernels->swiglu(out.data(), ups.data(), out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double g = static_cast<double>(gates[i]),
                   expected = g / (1 + std::exp(-g)) * static_cast<double>(ups[i]);
      CHECK(std::abs(static_cast<double>(out[i]) - expected) <= 1e-6 * std::abs(expected) + 1e-35);
    }
    if (first.empty()) first = out;
    CHECK(std::equal(out.begin(), out.end(), first.begin(), same_bits));
  }
}

void check_attention() {
  for (const std::size_t size : {8, 16, 40, 64, 96, 128}) {
    for (const std::size_t count : {1, 2, 7, 8, 9, 31, 100}) {
      const std::size_t stride = size + 8, slots = count + 5;
      std::vector<float> keys(slots * stride), values(slots * stride), q(size);
      for (float& value : keys) value = uniform(-1, 1);
      for (float& value : values) value = uniform(-1, 1);
      for (float& value : q) value = uniform(-1, 1);
      std::vector<std::int32_t> order(slots);
      for (std::size_t i = 0; i < slots; ++i) order[i] = static_cast<std::int32_t>(i);
      std::shuffle(order.begin(), order.end(), random_source);
      const auto at = [&](const std::vector<float>& rows, std::size_t i, std::size_t d) {
        return static_cast<double>(rows[static_cast<std::size_t>(order[i]) * stride + d]);
      };
      std::vector<double> weights(count), expected(size);
      double total = 0;
      for (std::size_t i = 0; i < count; ++i) {
        double score = 0;
        for (std::size_t d = 0; d < size; ++d) score += static_cast<double>(q[d]) * at(keys, i, d);
        total += weights[i] = std::exp(score);
      }
      for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t d = 0; d < size; ++d) expected[d] += weights[i] / total * at(values, i, d);
      }
      std::vector<float> first;
      for (const Kernels* kernels : all_kernels()) {
        std::vector<float> scores(bidtrie::round_up(count, 8)), out(size);
        kernels->attention(q.data(), {keys.data(), values.data(), stride, order.data(), count}, size,
                           scores.data(), out.data());
        for (std::size_t d = 0; d < size; ++d)
          CHECK(std::abs(static_cast<double>(out[d]) - expected[d]) <= 2e-6);
        if (first.empty()) first = out;
        CHECK(std::equal(out.begin(), out.end(), first.begin(), same_bits));
      }
    }
  }
}

void check_sum_exp() {
  for (const std::size_t n : {1, 5, 8, 17, 4096}) {
    std::vector<float> x(n);
    for (float& value : x) value = uniform(-30, 30);
    const double top = static_cast<double>(*std::max_element(x.begin(), x.end()));
    double expected = 0;
    for (const float value : x) expected += std::exp(static_cast<double>(value) - top);
    double first = 0;
    for (const Kernels* kernels : all_kernels()) {
      float largest = 0;
      double sum = 0;
      kernels->sum_exp(x.data(), n, &largest, &sum);
      CHECK(static_cast<double>(largest) == top && std::abs(sum - expected) <= 1e-6 * expected);
      if (kernels == all_kernels().front()) first = sum;
      CHECK(sum == first);
    }
  }
}

void check_bad_matrices() {
  const std::vector<std::uint8_t> bytes(4096);
  const auto make = [&](WeightFormat format, std::vector<std::size_t> shape, std::size_t size) {
    return Matrix("some.weight", {format, std::move(shape), bytes.data(), size}, false);
  };
  CHECK_THROWS(bidtrie::ModelError, "some.weight", make(WeightFormat::kQ4, {4, 40}, 100));
  CHECK_THROWS(bidtrie::ModelError, "expected 80", make(WeightFormat::kQ4, {4, 32}, 79));
  CHECK_THROWS(bidtrie::ModelError, "expected 136", make(WeightFormat::kQ8, {4, 32}, 80));
  CHECK_THROWS(bidtrie::ModelError, "two dimensions", make(WeightFormat::kFloat32, {4}, 16));
  CHECK_THROWS(bidtrie::ModelError, "impossible", make(WeightFormat::kFloat32, {0, 4}, 0));
  CHECK_THROWS(bidtrie::ModelError, "impossible", make(WeightFormat::kQ8, {1u << 31, 1u << 31}, 4096));
  CHECK_THROWS(bidtrie::EngineError, "expected avx2 or portable", bidtrie::kernels_for("sse9"));
}

}  // namespace

int main() {
  check_linears();
  check_quantize();
  check_rms_norm();
  check_swiglu();
  check_attention();
  check_sum_exp();
  check_bad_matrices();
}
