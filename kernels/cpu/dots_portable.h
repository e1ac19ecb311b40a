#pragma once

#include <cstddef>

#include "activations.h"
#include "bidtrie/weights_int4.h"
#include "bidtrie/weights_int8.h"
#include "bidtrie/weights_sparse.h"
#include "kinds.h"
#include "lanes_portable.h"

// Exact integer products in plain C++: a block is spread out as signed bytes, zeros where nothing is kept.

namespace bidtrie {
namespace {

constexpr std::size_t units_at_once(std::size_t) {
  return 1;
}
inline constexpr std::size_t kNodesAtOnce = 4;

/// Runs `rounds` times 12 multiply-add instructions and returns how many products they make. What a compiler
/// makes of plain loops has no such bound: this is one product at a time.
inline std::uint64_t multiply_adds(std::uint64_t rounds) {
  std::int32_t sums[12] = {};
  for (std::uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (std::int32_t& sum : sums) {
      sum = sum * 3 + 1;
      __asm__ volatile("" : "+r"(sum));
    }
  }
  return rounds * 12;
}

/// Looks values up by 4-bit codes.
struct Decoder {
  template <class Kind>
  Decoder(Kind, const CodeTable& table) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = Kind::kCodes == Codes::kInt4Table ? table[i] : static_cast<std::int8_t>(i);
      if (Kind::kCodes == Codes::kInt4) values[i] = static_cast<std::int8_t>(values[i] - 8);
    }
  }
  std::int8_t operator[](int code) const { return values[static_cast<std::size_t>(code)]; }
  CodeTable values;
};

template <class Kind, bool kSplit, std::size_t kFirst, std::size_t T, std::size_t N>
class Dots {
  static_assert(T == 1 && kFirst == 0);

 public:
  Dots(const std::uint8_t* block, std::size_t, const PanelBlock& x, std::size_t place,
       const Decoder& decoder) {
    for (std::size_t r = 0; r < kTileRows; ++r) {
      std::int8_t row[kBlock] = {};
      if constexpr (Kind::kPattern == Pattern::kDense) {
        for (std::size_t c = 0; c < kBlock; ++c) {
          row[c] = Kind::kCodes == Codes::kInt8 ? static_cast<std::int8_t>(int8::get(block, r, c))
                                                : decoder[int4::get(block, r, c)];
        }
      } else {
        for (std::size_t k = 0; k < sparse::kept(Kind::kPattern); ++k) {
          row[sparse::column(Kind::kPattern, block, r, k)] =
              decoder[sparse::code(Kind::kPattern, block, r, k)];
        }
      }
      for (std::size_t n = 0; n < N; ++n) {
        const std::int8_t* codes = x.codes[place + n];
        std::int32_t first = 0, last = 0;
        for (std::size_t c = 0; c < kBlock / 2; ++c) {
          first += row[c] * codes[c];
          last += row[c + kBlock / 2] * codes[c + kBlock / 2];
        }
        first_[n].v[r] = static_cast<float>(kSplit ? first : first + last);
        last_[n].v[r] = static_cast<float>(last);
      }
    }
  }
  const Unit& all(std::size_t, std::size_t n) const { return first_[n]; }
  const Unit& first(std::size_t, std::size_t n) const { return first_[n]; }
  const Unit& last(std::size_t, std::size_t n) const { return last_[n]; }

 private:
  Unit first_[N], last_[N];
};

}  // namespace
}  // namespace bidtrie
