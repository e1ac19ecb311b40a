#pragma once

#include <cstddef>

#include "activations.h"
#include "kinds.h"
#include "lanes_avx2.h"

// Exact integer products with AVX2: a vector holds 4 columns of 8 rows, half a tile, and meets 4 activations
// that are broadcast to all rows. maddubs multiplies unsigned bytes by signed ones and adds pairs in 16 bits;
// how many of those fit before they must be widened depends on the codes:
//
//   0 … 15           2 x  15 x 127 = 3,810 a product: the 8 of a block, 30,480
//   0 … 64           tables, shifted: 2 x 64 x 127 = 16,256: two
//   -32 … 32         sparse; magnitudes, the signs moved to the activations: 8,128: the 4 of a block, 32,512
//   -128 … 127       8-bit codes, likewise: 2 x 128 x 127 = 32,512: one

namespace bidtrie {
namespace {

/// Units whose products run together: with few nodes both halves of a tile, so that it is read once and in
/// order; with more, one half fills the registers.
constexpr std::size_t units_at_once(std::size_t nodes) {
  return nodes <= 2 ? 2 : 1;
}
inline constexpr std::size_t kNodesAtOnce = 4;

inline __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

/// Runs `rounds` times 12 independent multiply-add instructions and returns how many products they make: what
/// bounds every kernel here.
inline std::uint64_t multiply_adds(std::uint64_t rounds) {
  const __m256i factor = _mm256_set1_epi8(1);
  __m256i a = factor, b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (__m256i* product : {&a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l}) {
      *product = _mm256_maddubs_epi16(*product, factor);
    }
    // Each product is needed, in a register.
    __asm__ volatile(""
                     : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h), "+x"(i),
                       "+x"(j), "+x"(k), "+x"(l));
  }
  return rounds * 12 * 32;
}

/// Looks values up by 4-bit codes.
struct Decoder {
  template <class Kind>
  Decoder(Kind, const CodeTable& table) {
    alignas(16) const CodeTable values = decoded<Kind>(table);
    entries = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(values.data())));
  }
  __m256i entries;
};

/// Vectors `j` of the two halves of a block, for rows 0 … 7 or 8 … 15, and which activations they meet.
template <class Kind, std::size_t kHalf>
struct Vectors {
  Vectors(const std::uint8_t* block, std::size_t j, const Decoder& decoder) {
    if constexpr (Kind::kCodes == Codes::kInt8) {
      low = load_bytes(block + 64 * j + 32 * kHalf);
      high = load_bytes(block + 256 + 64 * j + 32 * kHalf);
      return;
    }
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i codes = load_bytes(block + 64 * j + 32 * kHalf);
    low = _mm256_and_si256(codes, nibble);
    high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
    if constexpr (Kind::kCodes == Codes::kInt4Table || Kind::kSigned) {
      low = _mm256_shuffle_epi8(decoder.entries, low);
      high = _mm256_shuffle_epi8(decoder.entries, high);
    }
    const __m256i two_bits = _mm256_set1_epi8(3);
    if constexpr (Kind::kPattern == Pattern::k2of4) {
      // Bytes 2 and 3 of a lane stand for the second four columns.
      const __m256i second = _mm256_set1_epi32(0x04040000);
      const __m256i fields = load_bytes(block + 128 + 32 * kHalf);
      const int at = static_cast<int>(2 * j);
      low_columns = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(fields, at), two_bits), second);
      high_columns = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(fields, at + 4), two_bits), second);
    } else if constexpr (Kind::kPattern == Pattern::k1of4) {
      const __m256i column = _mm256_set1_epi32(0x0c080400);
      const __m256i fields = _mm256_srli_epi16(load_bytes(block + 64), 4 * kHalf);
      low_columns = _mm256_or_si256(_mm256_and_si256(fields, two_bits), column);
      high_columns = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(fields, 2), two_bits), column);
    }
  }

  static __m256i meet(const std::int8_t* x, std::size_t j, [[maybe_unused]] __m256i columns) {
    if constexpr (Kind::kPattern == Pattern::kDense) {
      return _mm256_set1_epi32(load_as<std::int32_t>(x + 4 * j));
    } else if constexpr (Kind::kPattern == Pattern::k2of4) {
      return _mm256_shuffle_epi8(_mm256_set1_epi64x(load_as<std::int64_t>(x + 8 * j)), columns);
    } else {
      return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_as<__m128i>(x)), columns);
    }
  }
  __m256i low_inputs(const std::int8_t* x, std::size_t j) const { return meet(x, j, low_columns); }
  __m256i high_inputs(const std::int8_t* x, std::size_t j) const { return meet(x + 16, j, high_columns); }

  __m256i low, high;
  __m256i low_columns, high_columns;
};

/// Add products to a running sum. The empty assembly pins the sum to a register: left alone, the compiler
/// gathers the products of a whole block before it adds them, and spills.
inline void add_pairs(__m256i& sum, __m256i products, bool begins) {
  sum = begins ? products : _mm256_add_epi16(sum, products);
  __asm__("" : "+x"(sum));
}

inline __m256i widen(__m256i pairs) {
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/// Products of a block of T halves of tiles, from half kFirst on, with N nodes: all 32 columns, or (split) 16
/// and 16.
template <class Kind, bool kSplit, std::size_t kFirst, std::size_t T, std::size_t N>
class Dots {
  static_assert(kFirst + T <= 2, "both halves of one tile at most");

 public:
  Dots(const std::uint8_t* block, std::size_t, const PanelBlock& x, std::size_t place,
       const Decoder& decoder) {
#pragma GCC unroll 8
    for (std::size_t j = 0; j < Kind::kVectors; ++j) {
      unit<0>(block, j, x, place, decoder);
      if constexpr (T == 2) unit<1>(block, j, x, place, decoder);
    }
#pragma GCC unroll 2
    for (std::size_t t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (std::size_t n = 0; n < N; ++n) {
        if constexpr (kNarrow) {
          low_[t][n] = widen(low_[t][n]);
          if constexpr (kSplit) high_[t][n] = widen(high_[t][n]);
        }
        if constexpr (kSplit) {
          const std::int32_t first = -8 * x.first[place + n];
          shift(low_[t][n], first);
          shift(high_[t][n], x.minus8[place + n] - first);
        } else {
          shift(low_[t][n], x.minus8[place + n]);
        }
      }
    }
  }
  Unit all(std::size_t t, std::size_t n) const { return {_mm256_cvtepi32_ps(low_[t][n])}; }
  Unit first(std::size_t t, std::size_t n) const { return all(t, n); }
  Unit last(std::size_t t, std::size_t n) const { return {_mm256_cvtepi32_ps(high_[t][n])}; }

 private:
  /// Sums of a whole block fit 16 bits.
  static constexpr bool kNarrow =
      Kind::kCodes == Codes::kInt4 || Kind::kCodes == Codes::kInt4Min || Kind::kSigned;

  template <std::size_t t>
  void unit(const std::uint8_t* block, std::size_t j, const PanelBlock& x, std::size_t place,
            const Decoder& decoder) {
    const Vectors<Kind, kFirst + t> w(block, j, decoder);
    const bool begins = j == 0;
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) {
      const std::int8_t* codes = x.codes[place + n];
      const __m256i low = product(w.low, w.low_inputs(codes, j)),
                    high = product(w.high, w.high_inputs(codes, j));
      if constexpr (kNarrow) {
        add_pairs(low_[t][n], low, begins);
        add_pairs(kSplit ? high_[t][n] : low_[t][n], high, kSplit && begins);
      } else if constexpr (kSplit) {
        add_wide(low_[t][n], widen(low), begins);
        add_wide(high_[t][n], widen(high), begins);
      } else if constexpr (Kind::kCodes == Codes::kInt8) {
        add_wide(low_[t][n], _mm256_add_epi32(widen(low), widen(high)), begins);
      } else {
        add_wide(low_[t][n], widen(_mm256_add_epi16(low, high)), begins);
      }
    }
  }

  static __m256i product(__m256i w, __m256i x) {
    if constexpr (Kind::kCodes == Codes::kInt8 || Kind::kSigned) {
      return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    } else {
      return _mm256_maddubs_epi16(w, x);
    }
  }

  static void add_wide(__m256i& sum, __m256i products, bool begins) {
    sum = begins ? products : _mm256_add_epi32(sum, products);
    __asm__("" : "+x"(sum));
  }

  /// Take away what unsigned codes add, for a sum of activations in units of -8.
  static void shift(__m256i& sum, [[maybe_unused]] std::int32_t minus8) {
    if constexpr (Kind::kSigned) return;
    if constexpr (Kind::kCodes == Codes::kInt4) {
      sum = _mm256_add_epi32(sum, _mm256_set1_epi32(minus8));
    } else if constexpr (Kind::kCodes == Codes::kInt4Table) {
      sum = _mm256_add_epi32(sum, _mm256_slli_epi32(_mm256_set1_epi32(minus8), 2));
    }
  }

  __m256i low_[T][N], high_[kSplit ? T : 1][kSplit ? N : 1];
};

}  // namespace
}  // namespace bidtrie
