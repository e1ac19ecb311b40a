#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bidtrie/weights.h"

namespace bidtrie {
namespace {

/// A quantized format at compile time.
template <Codes kC, Pattern kP>
struct Kind {
  static constexpr Codes kCodes = kC;
  static constexpr Pattern kPattern = kP;
  /// Vectors of 4 codes a row in each half of a block.
  static constexpr std::size_t kVectors = kept_of_four(kP);
  /// Codes are decoded to signed values, whose magnitudes meet activations of their sign. Dense ones are
  /// stored, or decoded to, unsigned values instead, since the sum of all activations of a block, which
  /// takes the shift away again, is the same for all rows.
  static constexpr bool kSigned = kP != Pattern::kDense;
};

/// The bytes at `p`, aligned or not.
template <class T>
inline T load_as(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// The values that a decoder looks up for codes 0 … 15.
template <class Kind>
inline CodeTable decoded(const CodeTable& table) {
  CodeTable values{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    int value = Kind::kCodes == Codes::kInt4Table ? table[i] : static_cast<int>(i) - 8;
    if (!Kind::kSigned) value += Kind::kCodes == Codes::kInt4Table ? kTableShift : 8;
    values[i] = static_cast<std::int8_t>(value);
  }
  return values;
}

using Int8 = Kind<Codes::kInt8, Pattern::kDense>;
using Int4 = Kind<Codes::kInt4, Pattern::kDense>;
using Int4Min = Kind<Codes::kInt4Min, Pattern::kDense>;
using Int4Table = Kind<Codes::kInt4Table, Pattern::kDense>;
using Half = Kind<Codes::kInt4, Pattern::k2of4>;
using HalfTable = Kind<Codes::kInt4Table, Pattern::k2of4>;
using Quarter = Kind<Codes::kInt4, Pattern::k1of4>;
using QuarterTable = Kind<Codes::kInt4Table, Pattern::k1of4>;

/// Call f with the Kind of a quantized format.
template <class F>
inline void with_kind(const WeightFormat& format, F f) {
  const bool table = format.codes == Codes::kInt4Table;
  switch (format.pattern) {
    case Pattern::k2of4:
      return table ? f(HalfTable{}) : f(Half{});
    case Pattern::k1of4:
      return table ? f(QuarterTable{}) : f(Quarter{});
    case Pattern::kDense:
      break;
  }
  switch (format.codes) {
    case Codes::kInt8:
      return f(Int8{});
    case Codes::kInt4Min:
      return f(Int4Min{});
    case Codes::kInt4Table:
      return f(Int4Table{});
    default:
      return f(Int4{});
  }
}

}  // namespace
}  // namespace bidtrie
