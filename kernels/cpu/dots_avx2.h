#pragma once

#include <cstddef>
#include <cstring>

#include "lanes_avx2.h"

namespace bidtrie {
namespace {

inline __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline float q8_scale(const std::uint8_t* p) {
  std::uint16_t half;
  std::memcpy(&half, p, 2);
  return _cvtsh_ss(half);
}

inline Lanes tile_scales(const std::uint8_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

inline __m256i broadcast(const std::int8_t* p) {
  std::int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

/// A vector holds 4 columns of 8 rows; the same 4 activations, broadcast, meet all rows of T tiles at once.
/// Pairs of products stay in 16 bits over the whole group: 8 vectors x 2 products x 15 x 127 = 30,480 (30,720
/// for -128) < 32,768.
template <std::size_t T, std::size_t N>
class Q4Dots {
 public:
  Q4Dots(const std::uint8_t* w, std::size_t tile_bytes, const std::int8_t* x, std::size_t stride) {
    const __m256i low_nibbles = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (std::size_t v = 0; v < 4; ++v) {
      __m256i low[T], high[T];
#pragma GCC unroll 8
      for (std::size_t t = 0; t < T; ++t) {
        const __m256i codes = load_bytes(w + t * tile_bytes + 32 * v);
        low[t] = _mm256_and_si256(codes, low_nibbles);
        high[t] = _mm256_and_si256(_mm256_srli_epi16(codes, 4), low_nibbles);
      }
#pragma GCC unroll 8
      for (std::size_t n = 0; n < N; ++n) {
        const __m256i first = broadcast(x + n * stride + 4 * v),
                      second = broadcast(x + n * stride + 4 * v + 16);
#pragma GCC unroll 8
        for (std::size_t t = 0; t < T; ++t) {
          const __m256i products = _mm256_maddubs_epi16(low[t], first);
          add(pairs_[t][n], products, v == 0);
          add(pairs_[t][n], _mm256_maddubs_epi16(high[t], second), false);
        }
      }
    }
  }
  Lanes lanes(std::size_t t, std::size_t n) const {
    return {_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs_[t][n], _mm256_set1_epi16(1)))};
  }

 private:
  /// The empty assembly pins the sum to a register: left alone, the compiler gathers the products of a whole
  /// group before it adds them, and spills.
  static void add(__m256i& pairs, __m256i products, bool first) {
    pairs = first ? products : _mm256_add_epi16(pairs, products);
    __asm__("" : "+x"(pairs));
  }

  __m256i pairs_[T][N];
};

/// maddubs wants an unsigned factor: the weights' magnitudes, with their signs moved to the activations.
/// 2 x 128 x 127 = 32,512 < 32,768.
inline Lanes q8_dots(const std::uint8_t* w, const std::int8_t* x) {
  const __m256i weights = load_bytes(w);
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(load_bytes(x), weights));
  return {_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}

}  // namespace
}  // namespace bidtrie
