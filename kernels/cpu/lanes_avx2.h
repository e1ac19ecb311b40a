#pragma once

#include <immintrin.h>

#include <cstdint>

namespace bidtrie {
namespace {

/// Eight rows of a tile: what one vector register holds.
struct Unit {
  static constexpr int kRows = 8;
  __m256 v;

  static Unit zero() { return {_mm256_setzero_ps()}; }
  static Unit set(float x) { return {_mm256_set1_ps(x)}; }
  static Unit load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Unit load_halves(const void* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline Unit operator+(Unit a, Unit b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline Unit operator*(Unit a, Unit b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline Unit fma(Unit a, Unit b, Unit c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}

/// Sixteen float lanes in two AVX2 vectors.
struct Lanes {
  __m256 a, b;

  static Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Lanes set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Lanes load_halves(const void* p) {
    const auto* halves = static_cast<const std::uint16_t*>(p);
    return {Unit::load_halves(halves).v, Unit::load_halves(halves + 8).v};
  }
  void store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  void store_halves(std::uint16_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT));
  }
};

/// Rows and nodes of a float32 tile that fill the registers.
inline constexpr std::size_t kFloatRows = 2, kFloatNodes = 3;

inline Lanes operator+(Lanes x, Lanes y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline Lanes operator-(Lanes x, Lanes y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline Lanes operator*(Lanes x, Lanes y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline Lanes operator/(Lanes x, Lanes y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
inline Lanes max(Lanes x, Lanes y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
inline Lanes min(Lanes x, Lanes y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
inline Lanes abs(Lanes x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}

/// x * y + z, rounded once.
inline Lanes fma(Lanes x, Lanes y, Lanes z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

inline __m256 exp2_of_rounded(__m256 v) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_set1_epi32(127)), 23));
}

/// 2^n for lanes that hold 1.5 * 2^23 + n, n from -126 to 127.
inline Lanes exp2_of_rounded(Lanes x) {
  return {exp2_of_rounded(x.a), exp2_of_rounded(x.b)};
}

inline float horizontal_max(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/// With s[i] = x[i] + x[i + 8]: ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)).
inline float horizontal_sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 pairs = _mm_hadd_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 quads = _mm_hadd_ps(pairs, pairs);
  return _mm_cvtss_f32(_mm_add_ss(quads, _mm_movehdup_ps(quads)));
}

inline __m256 horizontal_sums_of_eight(const Lanes* x) {
  __m256 s[8];
  for (int i = 0; i < 8; ++i) s[i] = _mm256_add_ps(x[i].a, x[i].b);
  const __m256 first = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
  const __m256 second = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(first, second, 0x20),
                       _mm256_permute2f128_ps(first, second, 0x31));
}

/// Lane i is horizontal_sum(x[i]).
inline Lanes horizontal_sums(const Lanes* x) {
  return {horizontal_sums_of_eight(x), horizontal_sums_of_eight(x + 8)};
}

/// Adds the sixteen lanes, in halves, to eight running sums in double.
struct DoubleSum {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();

  void add_half(__m256 eight) {
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(eight)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(eight, 1)));
  }
  void add(Lanes x) {
    add_half(x.a);
    add_half(x.b);
  }
  double total() const {
    alignas(32) double s[8];
    _mm256_store_pd(s, low);
    _mm256_store_pd(s + 4, high);
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  }
};

/// Store round-to-nearest-even of 16 lanes, each at most 127.5 in magnitude; returns the codes' sum.
inline std::int32_t store_codes(Lanes x, std::int8_t* codes) {
  const __m256i low = _mm256_cvtps_epi32(x.a), high = _mm256_cvtps_epi32(x.b);
  // Packing works within 128-bit halves; the permutation puts the 4-byte pieces back in order.
  const __m256i words = _mm256_packs_epi32(low, high);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, words),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm256_castsi256_si128(bytes));
  const __m256i sums = _mm256_add_epi32(low, high);
  __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
  return _mm_cvtsi128_si32(total);
}

}  // namespace
}  // namespace bidtrie
