#pragma once

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "bidtrie/weights_tile.h"
#include "matrix.h"

/// What the codes of a random tensor are.
enum class Fill { kRandom, kExtreme, kZero };

/// A random tensor of any storage and format, with what its source refers to.
class RandomTensor {
 public:
  static RandomTensor floats(std::vector<std::size_t> shape, float spread, std::mt19937& random) {
    RandomTensor tensor;
    std::size_t size = 1;
    for (const std::size_t n : shape) size *= n;
    std::uniform_real_distribution<float> uniform(-spread, spread);
    tensor.data_.resize(size * sizeof(float));
    for (std::size_t i = 0; i < size; ++i) {
      const float value = uniform(random);
      std::memcpy(&tensor.data_[i * sizeof(float)], &value, sizeof(float));
    }
    tensor.shape_ = std::move(shape);
    return tensor;
  }

  /// `exponent`: of the scales, powers of two and a mantissa; extreme: the codes that come closest to
  /// overflowing 16-bit sums.
  static RandomTensor groups(const bidtrie::WeightFormat& format, std::size_t rows, std::size_t cols,
                             Fill fill, std::mt19937& random, int exponent = -5) {
    RandomTensor tensor;
    tensor.storage_ = bidtrie::Storage::kGroups;
    tensor.format_ = format;
    tensor.shape_ = {rows, cols};
    const std::size_t kept = cols / 4 * bidtrie::kept_of_four(format.pattern),
                      groups = bidtrie::tile::groups(format, cols);
    const bool wide = format.codes == bidtrie::Codes::kInt8;
    tensor.data_ = bytes(rows * kept / (wide ? 1 : 2), random);
    for (std::uint8_t& byte : tensor.data_) {
      if (fill == Fill::kExtreme) byte = wide ? 0x80 : 0xff;
      if (fill == Fill::kZero) byte = 0;
    }
    tensor.scales_ = halves(rows * groups, exponent, random);
    if (format.codes == bidtrie::Codes::kInt4Min) tensor.minimums_ = halves(rows * groups, exponent, random);
    if (format.pattern != bidtrie::Pattern::kDense) tensor.positions_ = bytes(rows * kept / 4, random);
    if (format.pattern == bidtrie::Pattern::k2of4) {
      // The six ways to keep two of four columns.
      constexpr std::uint8_t kPairs[] = {0b0100, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110};
      for (std::uint8_t& byte : tensor.positions_) {
        byte = static_cast<std::uint8_t>(kPairs[random() % 6] | kPairs[random() % 6] << 4);
      }
    }
    for (std::int8_t& entry : tensor.table_) entry = static_cast<std::int8_t>(random() % 65 - 32);
    tensor.table_[0] = -32;
    tensor.table_[15] = 32;
    return tensor;
  }

  /// GGUF's Q4_1 or Q8_0.
  static RandomTensor gguf(bidtrie::Storage storage, std::size_t rows, std::size_t cols, Fill fill,
                           std::mt19937& random, int exponent = -5) {
    RandomTensor tensor;
    tensor.storage_ = storage;
    tensor.shape_ = {rows, cols};
    const bool wide = storage == bidtrie::Storage::kGgufQ8_0;
    const std::size_t block = wide ? 34 : 20, numbers = wide ? 2 : 4;
    tensor.data_ = bytes(rows * cols / 32 * block, random);
    for (std::size_t at = 0; at < tensor.data_.size(); at += block) {
      for (std::size_t i = numbers; i < block; ++i) {
        if (fill == Fill::kExtreme) tensor.data_[at + i] = wide ? 0x80 : 0xff;
        if (fill == Fill::kZero) tensor.data_[at + i] = 0;
      }
      const auto scales = halves(numbers / 2, exponent, random);
      std::memcpy(&tensor.data_[at], scales.data(), numbers);
    }
    return tensor;
  }

  bidtrie::TensorSource source() const {
    return {storage_, shape_, data_, format_, scales_, minimums_, positions_, table_};
  }

 private:
  static std::vector<std::uint8_t> bytes(std::size_t count, std::mt19937& random) {
    std::vector<std::uint8_t> out(count);
    for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random());
    return out;
  }

  /// float16 of either sign.
  static std::vector<std::uint8_t> halves(std::size_t count, int exponent, std::mt19937& random) {
    std::vector<std::uint8_t> out(2 * count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto half = static_cast<std::uint16_t>((exponent + 15) << 10 | (random() & 0x83ff));
      std::memcpy(&out[2 * i], &half, 2);
    }
    return out;
  }

  bidtrie::Storage storage_ = bidtrie::Storage::kFloat32;
  bidtrie::WeightFormat format_{};
  std::vector<std::size_t> shape_;
  std::vector<std::uint8_t> data_, scales_, minimums_, positions_;
  bidtrie::CodeTable table_{};
};

/// All quantized formats, in groups of `group` columns.
inline std::vector<bidtrie::WeightFormat> quantized_formats(std::size_t group) {
  using bidtrie::Codes, bidtrie::Pattern;
  return {{Codes::kInt8, Pattern::kDense, group},    {Codes::kInt4, Pattern::kDense, group},
          {Codes::kInt4Min, Pattern::kDense, group}, {Codes::kInt4Table, Pattern::kDense, group},
          {Codes::kInt4, Pattern::k2of4, group},     {Codes::kInt4Table, Pattern::k2of4, group},
          {Codes::kInt4, Pattern::k1of4, group},     {Codes::kInt4Table, Pattern::k1of4, group}};
}
