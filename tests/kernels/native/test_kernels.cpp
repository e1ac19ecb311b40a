// Kernels of every instruction set against float64, and against each other to the bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "activations.h"
#include "bidtrie/error.h"
#include "bidtrie/half.h"
#include "check.h"
#include "instruction_set.h"
#include "matrix.h"
#include "random_tensor.h"

namespace {

using bidtrie::ActivationRows;
using bidtrie::Arena;
using bidtrie::Codes;
using bidtrie::Kernels;
using bidtrie::Matrix;
using bidtrie::Pattern;
using bidtrie::Storage;
using bidtrie::TensorSource;
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

/// Largest difference that a product with these weights and activations may have from float64.
///
/// Quantized: rounding moves an activation by at most scale / 2 and a hair, since scale and code are rounded
/// floats. Every format: each float operation errs by at most 2^-24 of the sum of the terms' magnitudes.
double bound(const Matrix& matrix, const std::vector<float>& row, const float* x) {
  const std::size_t cols = matrix.cols();
  double magnitude = 0, rounding = 0;
  for (std::size_t g = 0; g < cols; g += bidtrie::kBlock) {
    double largest = 0, weights = 0;
    for (std::size_t c = g; c < std::min(cols, g + bidtrie::kBlock); ++c) {
      largest = std::max(largest, std::abs(static_cast<double>(x[c])));
      weights += std::abs(static_cast<double>(row[c]));
    }
    // A product is taken apart into codes and minima, which may be larger than the weights.
    magnitude += largest * (matrix.is_quantized() ? 2 * weights + 64 : weights);
    rounding += largest < 1e-30 ? largest * weights : largest / 127 / 2 * (1 + 1e-4) * weights;
  }
  const double operations = static_cast<double>(cols) / 8 + 40;
  return (matrix.is_quantized() ? rounding : 0) + magnitude * operations * 0x1p-24;
}

void check_linear(const TensorSource& source, std::size_t nodes, Fill fill) {
  Arena arena;
  const Matrix matrix("w", source, false, arena), exact("w", source, true, arena);
  const std::size_t rows = matrix.rows(), cols = matrix.cols();
  std::vector<float> x(nodes * cols), bias(bidtrie::round_up(rows, 16));
  for (float& value : x)
    value = fill == Fill::kExtreme ? (random_source() % 2 ? 3.0f : -3.0f) : uniform(-2, 2);
  if (fill == Fill::kZero) std::fill_n(x.begin(), cols, 0.0f);
  if (fill == Fill::kExtreme) std::fill_n(x.begin(), cols, 3.0f);
  for (float& value : bias) value = uniform(-1, 1);

  std::vector<std::vector<float>> results;
  for (const Kernels* kernels : all_kernels()) {
    ActivationRows inputs(nodes, cols);
    for (std::size_t n = 0; n < nodes; ++n) {
      std::copy_n(x.data() + n * cols, cols, inputs.values(n));
      if (matrix.is_quantized())
        kernels->quantize(inputs.values(n), inputs.blocks(), inputs.block(n, 0), n % bidtrie::kPanel);
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
      const std::size_t cut = rows / 32 * 16;
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

void check_groups(const WeightFormat& format, std::size_t rows, std::size_t cols, std::size_t nodes,
                  Fill fill = Fill::kRandom) {
  check_linear(RandomTensor::groups(format, rows, cols, fill, random_source).source(), nodes, fill);
}

void check_linears() {
  for (const std::size_t nodes : {1, 2, 3, 7, 8, 9, 16, 33, 64, 128}) {
    for (const WeightFormat& format : quantized_formats(32)) check_groups(format, 19, 96, nodes);
    check_linear(RandomTensor::floats({19, 100}, 1, random_source).source(), nodes, Fill::kRandom);
  }
  for (const std::size_t group : {16, 32, 64, 96, 256}) {
    for (const WeightFormat& format : quantized_formats(group)) {
      // Rows that end in the middle of a block, of a group, of a tile.
      for (const std::size_t cols : {16, 48, 272}) check_groups(format, 21, cols, 5);
      for (const Fill fill : {Fill::kExtreme, Fill::kZero}) check_groups(format, 24, 512, 6, fill);
    }
  }
  for (const std::size_t rows : {1, 7, 15, 16, 17, 31, 32, 33, 65}) {
    for (const WeightFormat& format : quantized_formats(64)) check_groups(format, rows, 64, 5);
  }
  for (const Storage storage : {Storage::kGgufQ4_1, Storage::kGgufQ8_0}) {
    for (const Fill fill : {Fill::kRandom, Fill::kExtreme, Fill::kZero}) {
      check_linear(RandomTensor::gguf(storage, 24, 576, fill, random_source).source(), 6, fill);
    }
  }
  for (const std::size_t cols : {1, 5, 8, 16, 17})
    check_linear(RandomTensor::floats({9, cols}, 1, random_source).source(), 4, Fill::kRandom);
}

void check_quantize() {
  std::vector<float> x(64);
  for (std::size_t i = 0; i < 32; ++i) x[i] = uniform(-5, 5);
  x[3] = -7.0f;
  for (std::size_t i = 32; i < 64; ++i) x[i] = i % 2 ? 1e-31f : -1e-35f;
  for (const Kernels* kernels : all_kernels()) {
    constexpr std::size_t kPlace = 5;
    ActivationRows rows(8, 64);
    kernels->quantize(x.data(), 2, rows.block(0, 0), kPlace);
    const bidtrie::PanelBlock &block = *rows.block(kPlace, 0), &zeros = *rows.block(kPlace, 1);
    const std::int8_t* codes = block.codes[kPlace];
    CHECK(block.scale[kPlace] == 7.0f / 127.0f && codes[3] == -127);
    int total = 0, first = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      total += codes[i];
      if (i < 16) first += codes[i];
      const float value = static_cast<float>(codes[i]) * block.scale[kPlace];
      CHECK(std::abs(value - x[i]) <= block.scale[kPlace] / 2 * 1.0001f);
    }
    CHECK(block.sum[kPlace] == block.scale[kPlace] * static_cast<float>(total));
    CHECK(block.minus8[kPlace] == -8 * total && block.first[kPlace] == first);
    CHECK(zeros.scale[kPlace] == 0 && zeros.sum[kPlace] == 0 && zeros.minus8[kPlace] == 0);
    for (std::size_t i = 0; i < 32; ++i) CHECK(zeros.codes[kPlace][i] == 0);
    // Nobody else's place is touched.
    for (std::size_t n = 0; n < bidtrie::kPanel; ++n) CHECK(n == kPlace || block.scale[n] == 0);
  }
}

void check_halves() {
  // Every float16, the middles between them, and what lies beyond their range.
  std::vector<float> x;
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float value = bidtrie::half_to_float(static_cast<std::uint16_t>(bits)),
                next = bidtrie::half_to_float(static_cast<std::uint16_t>(std::min(bits + 1, 0x7bffu)));
    for (const float v : {value, (value + next) / 2, std::nextafter((value + next) / 2, 0.0f)}) {
      x.push_back(v);
      x.push_back(-v);
    }
  }
  for (const float v : {65519.9f, 65520.0f, 1e10f, 3e38f}) x.push_back(v), x.push_back(-v);
  x.resize(bidtrie::round_up(x.size(), 16));
  std::vector<std::uint16_t> first;
  for (const Kernels* kernels : all_kernels()) {
    std::vector<std::uint16_t> out(x.size());
    kernels->to_half(x.data(), x.size(), out.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      // No neighbour is nearer; a tie goes to the even one.
      const double value = std::clamp(static_cast<double>(x[i]), -65504.0, 65504.0);
      const auto distance = [&](int step) {
        const int bits = (out[i] & 0x7fff) + step;
        if (bits < 0 || bits > 0x7bff) return 1e9;
        const auto half = static_cast<std::uint16_t>(bits | (out[i] & 0x8000));
        return std::abs(static_cast<double>(bidtrie::half_to_float(half)) - value);
      };
      const bool even = out[i] % 2 == 0;
      CHECK(distance(0) < distance(1) || (even && distance(0) == distance(1)));
      CHECK(distance(0) < distance(-1) || (even && distance(0) == distance(-1)));
    }
    if (first.empty()) first = out;
    CHECK(out == first);
  }
}

void check_rms_norm() {
  for (const std::size_t n : {1, 7, 8, 64, 576, 577}) {
    const std::size_t padded = bidtrie::round_up(n, 16);
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
  gates.resize(bidtrie::round_up(gates.size(), 16));
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

/// Attention of several queries over rows in any order, in one go and block by block, against float64.
void check_attention(std::size_t size, std::size_t count, bool half) {
  constexpr std::size_t kQueries = 3;
  const std::size_t stride = size + 16, slots = count + 5;
  std::vector<float> keys(slots * stride), values(slots * stride), queries(kQueries * size);
  for (float& value : keys) value = uniform(-1, 1);
  for (float& value : values) value = uniform(-1, 1);
  for (float& value : queries) value = uniform(-2, 2);
  std::vector<std::uint16_t> half_keys(keys.size()), half_values(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    half_keys[i] = bidtrie::float_to_half(keys[i]);
    half_values[i] = bidtrie::float_to_half(values[i]);
    if (half)
      keys[i] = bidtrie::half_to_float(half_keys[i]), values[i] = bidtrie::half_to_float(half_values[i]);
  }
  std::vector<std::int32_t> order(slots);
  for (std::size_t i = 0; i < slots; ++i) order[i] = static_cast<std::int32_t>(i);
  std::shuffle(order.begin(), order.end(), random_source);
  const auto at = [&](const std::vector<float>& rows, std::size_t i, std::size_t d) {
    return static_cast<double>(rows[static_cast<std::size_t>(order[i]) * stride + d]);
  };
  std::vector<double> expected(kQueries * size);
  for (std::size_t q = 0; q < kQueries; ++q) {
    std::vector<double> weights(count);
    double total = 0;
    for (std::size_t i = 0; i < count; ++i) {
      double score = 0;
      for (std::size_t d = 0; d < size; ++d)
        score += static_cast<double>(queries[q * size + d]) * at(keys, i, d);
      total += weights[i] = std::exp(score);
    }
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t d = 0; d < size; ++d) expected[q * size + d] += weights[i] / total * at(values, i, d);
    }
  }
  const bidtrie::AttentionContext context = {
      half ? static_cast<const void*>(half_keys.data()) : keys.data(),
      half ? static_cast<const void*>(half_values.data()) : values.data(), stride, order.data(), count};
  std::vector<float> first;
  for (const Kernels* kernels : all_kernels()) {
    std::vector<float> scratch(2 * bidtrie::kAttentionBlock * size), sums(kQueries * size);
    std::vector<bidtrie::AttentionState> states(kQueries);
    const std::size_t blocks = count / bidtrie::kAttentionBlock * bidtrie::kAttentionBlock;
    kernels->attend(queries.data(), kQueries, context, 0, blocks, half, size, scratch.data(), states.data(),
                    sums.data());
    for (std::size_t q = 0; q < kQueries; ++q) {
      kernels->attend(queries.data() + q * size, 1, context, blocks, count, half, size, scratch.data(),
                      &states[q], sums.data() + q * size);
    }
    std::vector<float> alone(size);
    bidtrie::AttentionState state;
    kernels->attend(queries.data(), 1, context, 0, count, half, size, scratch.data(), &state, alone.data());
    CHECK(same_bits(state.total, states[0].total));
    CHECK(std::equal(alone.begin(), alone.end(), sums.begin(), same_bits));
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] /= states[i / size].total;
      CHECK(std::abs(static_cast<double>(sums[i]) - expected[i]) <= 4e-6);
    }
    if (first.empty()) first = sums;
    CHECK(std::equal(sums.begin(), sums.end(), first.begin(), same_bits));
  }
}

void check_attentions() {
  for (const std::size_t size : {16, 32, 48, 64, 96, 128}) {
    for (const std::size_t count : {1, 2, 15, 16, 17, 31, 32, 33, 64, 100}) {
      check_attention(size, count, false);
      check_attention(size, count, true);
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
  Arena arena;
  const auto make = [&](Storage storage, std::vector<std::size_t> shape, std::size_t size) {
    const TensorSource source = {storage, std::move(shape), std::span(bytes).first(size), {}, {}, {}, {}, {}};
    return Matrix("some.weight", source, false, arena);
  };
  CHECK_THROWS(bidtrie::ModelError, "some.weight", make(Storage::kGgufQ4_1, {4, 40}, 100));
  CHECK_THROWS(bidtrie::ModelError, "expected 80", make(Storage::kGgufQ4_1, {4, 32}, 79));
  CHECK_THROWS(bidtrie::ModelError, "expected 136", make(Storage::kGgufQ8_0, {4, 32}, 80));
  CHECK_THROWS(bidtrie::ModelError, "two dimensions", make(Storage::kFloat32, {4}, 16));
  CHECK_THROWS(bidtrie::ModelError, "impossible", make(Storage::kFloat32, {0, 4}, 0));
  CHECK_THROWS(bidtrie::ModelError, "impossible", make(Storage::kGgufQ8_0, {1u << 31, 1u << 31}, 4096));
  CHECK_THROWS(bidtrie::ModelError, "do not go together", make(Storage::kGroups, {4, 32}, 64));
  CHECK_THROWS(bidtrie::EngineError, "or portable on this CPU", bidtrie::kernels_for("sse9"));
}

}  // namespace

int main() {
  check_linears();
  check_quantize();
  check_halves();
  check_rms_norm();
  check_swiglu();
  check_attentions();
  check_sum_exp();
  check_bad_matrices();
}
