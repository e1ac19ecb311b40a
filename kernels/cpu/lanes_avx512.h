#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bidtrie {
namespace {

/// Sixteen float lanes in an AVX-512 vector.
struct Lanes {
  static constexpr int kRows = 16;
  __m512 v;

  static Lanes zero() { return {_mm512_setzero_ps()}; }
  static Lanes set(float x) { return {_mm512_set1_ps(x)}; }
  static Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes load_halves(const void* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store_halves(std::uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
};

/// Rows of a tile that one register holds: all of them.
using Unit = Lanes;

/// Rows and nodes of a float32 tile that fill the registers.
inline constexpr std::size_t kFloatRows = 4, kFloatNodes = 4;

inline Lanes operator+(Lanes x, Lanes y) {
  return {_mm512_add_ps(x.v, y.v)};
}
inline Lanes operator-(Lanes x, Lanes y) {
  return {_mm512_sub_ps(x.v, y.v)};
}
inline Lanes operator*(Lanes x, Lanes y) {
  return {_mm512_mul_ps(x.v, y.v)};
}
inline Lanes operator/(Lanes x, Lanes y) {
  return {_mm512_div_ps(x.v, y.v)};
}
inline Lanes max(Lanes x, Lanes y) {
  return {_mm512_max_ps(x.v, y.v)};
}
inline Lanes min(Lanes x, Lanes y) {
  return {_mm512_min_ps(x.v, y.v)};
}
inline Lanes abs(Lanes x) {
  return {_mm512_abs_ps(x.v)};
}

/// x * y + z, rounded once.
inline Lanes fma(Lanes x, Lanes y, Lanes z) {
  return {_mm512_fmadd_ps(x.v, y.v, z.v)};
}

/// 2^n for lanes that hold 1.5 * 2^23 + n, n from -126 to 127.
inline Lanes exp2_of_rounded(Lanes x) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(x.v), _mm512_set1_epi32(127)), 23))};
}

inline __m256 low_half(Lanes x) {
  return _mm512_castps512_ps256(x.v);
}
inline __m256 high_half(Lanes x) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x.v), 1));
}

inline float horizontal_max(Lanes x) {
  const __m256 eight = _mm256_max_ps(low_half(x), high_half(x));
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/// With s[i] = x[i] + x[i + 8]: ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)).
inline float horizontal_sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(low_half(x), high_half(x));
  const __m128 pairs = _mm_hadd_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 quads = _mm_hadd_ps(pairs, pairs);
  return _mm_cvtss_f32(_mm_add_ss(quads, _mm_movehdup_ps(quads)));
}

/// Lane i is horizontal_sum(x[i]): every step halves what is left of each vector and puts two side by side.
inline Lanes horizontal_sums(const Lanes* x) {
  __m512 eights[8], pairs[4], quads[2];
  for (int i = 0; i < 8; ++i) {
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0x44),
                              _mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0xee));
  }
  for (int i = 0; i < 4; ++i) {
    pairs[i] = _mm512_add_ps(_mm512_shuffle_ps(eights[2 * i], eights[2 * i + 1], 0x88),
                             _mm512_shuffle_ps(eights[2 * i], eights[2 * i + 1], 0xdd));
  }
  for (int i = 0; i < 2; ++i) {
    quads[i] = _mm512_add_ps(_mm512_shuffle_ps(pairs[2 * i], pairs[2 * i + 1], 0x88),
                             _mm512_shuffle_ps(pairs[2 * i], pairs[2 * i + 1], 0xdd));
  }
  // 128-bit pieces: x[0 … 3], x[8 … 11], x[4 … 7], x[12 … 15].
  const __m512 sums = _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88),
                                    _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
  return {_mm512_shuffle_f32x4(sums, sums, 0xd8)};
}

/// Adds the sixteen lanes, in halves, to eight running sums in double.
struct DoubleSum {
  __m512d v = _mm512_setzero_pd();

  void add(Lanes x) {
    v = _mm512_add_pd(v, _mm512_cvtps_pd(low_half(x)));
    v = _mm512_add_pd(v, _mm512_cvtps_pd(high_half(x)));
  }
  double total() const {
    alignas(64) double s[8];
    _mm512_store_pd(s, v);
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  }
};

/// Store round-to-nearest-even of 16 lanes, each at most 127.5 in magnitude; returns the codes' sum.
inline std::int32_t store_codes(Lanes x, std::int8_t* codes) {
  const __m512i whole = _mm512_cvtps_epi32(x.v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(whole));
  return _mm512_reduce_add_epi32(whole);
}

}  // namespace
}  // namespace bidtrie
