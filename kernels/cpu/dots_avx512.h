#pragma once

#include <cstddef>

#include "activations.h"
#include "kinds.h"
#include "lanes_avx512.h"

// Exact integer products with AVX-512 VNNI: a vector holds 4 columns of 16 rows as unsigned bytes, and meets
// 4 activations that are broadcast to all rows. Signed codes of dense rows are stored as, or shifted to,
// unsigned ones; what that adds, the shift times the activations' sum, is what the sums start from. Rows of a
// sparse matrix meet different activations: there the signs of the codes move to the activations.

namespace bidtrie {
namespace {

/// Tiles whose products run together: with one or two nodes, one row of tiles is read fastest; three and four
/// fill the registers with two tiles, which share the activations that are broadcast; more do with one.
constexpr std::size_t units_at_once(std::size_t nodes) {
  return nodes == 3 || nodes == 4 ? 2 : 1;
}
inline constexpr std::size_t kNodesAtOnce = 8;

/// Runs `rounds` times 12 independent multiply-add instructions and returns how many products they make: what
/// bounds every kernel here.
inline std::uint64_t multiply_adds(std::uint64_t rounds) {
  const __m512i factor = _mm512_set1_epi8(1);
  __m512i a = factor, b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (__m512i* sum : {&a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l}) {
      *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
    }
    // Each sum is needed, in a register.
    __asm__ volatile(""
                     : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i),
                       "+v"(j), "+v"(k), "+v"(l));
  }
  return rounds * 12 * 64;
}

/// Looks values up by 4-bit codes.
struct Decoder {
  template <class Kind>
  Decoder(Kind, const CodeTable& table) {
    alignas(16) const CodeTable values = decoded<Kind>(table);
    entries = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(values.data())));
  }
  __m512i entries;
};

/// Vectors `j` of the two halves of a block, as unsigned bytes, and which activations they meet.
template <class Kind>
struct Vectors {
  Vectors() = default;
  Vectors(const std::uint8_t* block, std::size_t j, const Decoder& decoder) {
    if constexpr (Kind::kCodes == Codes::kInt8) {
      const __m512i sign = _mm512_set1_epi8(-128);
      low = _mm512_xor_si512(_mm512_loadu_si512(block + 64 * j), sign);
      high = _mm512_xor_si512(_mm512_loadu_si512(block + 256 + 64 * j), sign);
      return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i codes = _mm512_loadu_si512(block + 64 * j);
    low = _mm512_and_si512(codes, nibble);
    high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
    if constexpr (Kind::kCodes == Codes::kInt4Table || Kind::kSigned) {
      low = _mm512_shuffle_epi8(decoder.entries, low);
      high = _mm512_shuffle_epi8(decoder.entries, high);
    }
    if constexpr (Kind::kSigned) {
      low_negative = _mm512_movepi8_mask(low);
      high_negative = _mm512_movepi8_mask(high);
      low = _mm512_abs_epi8(low);
      high = _mm512_abs_epi8(high);
    }
    const __m512i two_bits = _mm512_set1_epi8(3);
    if constexpr (Kind::kPattern == Pattern::k2of4) {
      // Bytes 2 and 3 of a lane stand for the second four columns.
      const __m512i second = _mm512_set1_epi32(0x04040000);
      const __m512i fields = _mm512_loadu_si512(block + 128);
      const auto at = static_cast<unsigned>(2 * j);
      low_columns = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(fields, at), two_bits), second);
      high_columns = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(fields, at + 4), two_bits), second);
    } else if constexpr (Kind::kPattern == Pattern::k1of4) {
      const __m512i column = _mm512_set1_epi32(0x0c080400);
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 64));
      const __m512i fields = _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
      low_columns = _mm512_or_si512(_mm512_and_si512(fields, two_bits), column);
      high_columns = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(fields, 2), two_bits), column);
    }
  }

  static __m512i meet(const std::int8_t* x, std::size_t j, [[maybe_unused]] __m512i columns,
                      [[maybe_unused]] __mmask64 negative) {
    if constexpr (Kind::kPattern == Pattern::kDense) {
      return _mm512_set1_epi32(load_as<std::int32_t>(x + 4 * j));
    } else {
      const __m512i all = Kind::kPattern == Pattern::k2of4
                              ? _mm512_set1_epi64(load_as<std::int64_t>(x + 8 * j))
                              : _mm512_broadcast_i32x4(load_as<__m128i>(x));
      const __m512i kept = _mm512_shuffle_epi8(all, columns);
      return _mm512_mask_sub_epi8(kept, negative, _mm512_setzero_si512(), kept);
    }
  }
  __m512i low_inputs(const std::int8_t* x, std::size_t j) const {
    return meet(x, j, low_columns, low_negative);
  }
  __m512i high_inputs(const std::int8_t* x, std::size_t j) const {
    return meet(x + 16, j, high_columns, high_negative);
  }

  __m512i low, high;
  __m512i low_columns, high_columns;
  __mmask64 low_negative, high_negative;
};

/// What the products of a block start from, for a sum of codes in units of -8.
template <class Kind>
inline __m512i start_from(std::int32_t minus8) {
  if constexpr (Kind::kCodes == Codes::kInt4Min || Kind::kSigned) return _mm512_setzero_si512();
  constexpr unsigned kShift = Kind::kCodes == Codes::kInt4 ? 0 : Kind::kCodes == Codes::kInt4Table ? 2 : 4;
  return _mm512_slli_epi32(_mm512_set1_epi32(minus8), kShift);
}

/// Products of a block of T tiles with N nodes, all 32 columns, or (split) 16 and 16.
template <class Kind, bool kSplit, std::size_t kFirst, std::size_t T, std::size_t N>
class Dots {
 public:
  Dots(const std::uint8_t* block, std::size_t tile_bytes, const PanelBlock& x, std::size_t place,
       const Decoder& decoder) {
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) {
      const std::int32_t minus8 = x.minus8[place + n];
      if constexpr (kSplit) {
        const std::int32_t first = -8 * x.first[place + n];
        for (std::size_t t = 0; t < T; ++t) {
          low_[t][n] = start_from<Kind>(first);
          high_[t][n] = start_from<Kind>(minus8 - first);
        }
      } else {
        for (std::size_t t = 0; t < T; ++t) low_[t][n] = start_from<Kind>(minus8);
      }
    }
#pragma GCC unroll 4
    for (std::size_t j = 0; j < Kind::kVectors; ++j) {
      Vectors<Kind> w[T];
#pragma GCC unroll 4
      for (std::size_t t = 0; t < T; ++t) w[t] = Vectors<Kind>(block + t * tile_bytes, j, decoder);
#pragma GCC unroll 8
      for (std::size_t n = 0; n < N; ++n) {
        const std::int8_t* codes = x.codes[place + n];
#pragma GCC unroll 4
        for (std::size_t t = 0; t < T; ++t) {
          low_[t][n] = _mm512_dpbusd_epi32(low_[t][n], w[t].low, w[t].low_inputs(codes, j));
          __m512i& high = kSplit ? high_[t][n] : low_[t][n];
          high = _mm512_dpbusd_epi32(high, w[t].high, w[t].high_inputs(codes, j));
        }
      }
    }
  }
  Unit all(std::size_t t, std::size_t n) const { return {_mm512_cvtepi32_ps(low_[t][n])}; }
  Unit first(std::size_t t, std::size_t n) const { return all(t, n); }
  Unit last(std::size_t t, std::size_t n) const { return {_mm512_cvtepi32_ps(high_[t][n])}; }

 private:
  __m512i low_[T][N], high_[kSplit ? T : 1][kSplit ? N : 1];
};

}  // namespace
}  // namespace bidtrie
