#pragma once

#include <immintrin.h>

#include <cstdint>

namespace bidtrie {
namespace {

/// Eight float lanes in an AVX2 vector.
struct Lanes {
  __m256 v;

  static Lanes zero() { return {_mm256_setzero_ps()}; }
  static Lanes set(float x) { return {_mm256_set1_ps(x)}; }
  static Lanes load(const float* p) { return {_mm256_loadu_ps(p)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline Lanes operator/(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.v, b.v)};
}
inline Lanes max(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline Lanes min(Lanes a, Lanes b) {
  return {_mm256_min_ps(a.v, b.v)};
}
inline Lanes abs(Lanes a) {
  return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)};
}

/// a * b + c, rounded once.
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}

/// 2^n for lanes that hold 1.5 * 2^23 + n, n from -126 to 127.
inline Lanes exp2_of_rounded(Lanes a) {
  const __m256i biased = _mm256_add_epi32(_mm256_castps_si256(a.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))};
}

inline float horizontal_max(Lanes a) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/// ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
inline float horizontal_sum(Lanes a) {
  __m128 low = _mm256_castps256_ps128(a.v), high = _mm256_extractf128_ps(a.v, 1);
  const __m128 pairs = _mm_hadd_ps(low, high);
  const __m128 quads = _mm_hadd_ps(pairs, pairs);
  return _mm_cvtss_f32(_mm_add_ss(quads, _mm_movehdup_ps(quads)));
}

/// Lane i is horizontal_sum(a[i]).
inline Lanes horizontal_sums(const Lanes* a) {
  const __m256 first = _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
  const __m256 second = _mm256_hadd_ps(_mm256_hadd_ps(a[4].v, a[5].v), _mm256_hadd_ps(a[6].v, a[7].v));
  return {_mm256_add_ps(_mm256_permute2f128_ps(first, second, 0x20),
                        _mm256_permute2f128_ps(first, second, 0x31))};
}

/// Add the eight lanes, in two halves, to four running sums in double.
struct DoubleSum {
  __m256d v = _mm256_setzero_pd();

  void add(Lanes a) {
    v = _mm256_add_pd(v, _mm256_cvtps_pd(_mm256_castps256_ps128(a.v)));
    v = _mm256_add_pd(v, _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1)));
  }
  double total() const {
    alignas(32) double sums[4];
    _mm256_store_pd(sums, v);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
};

/// Store round-to-nearest-even of the lanes of one group, each at most 127.5 in magnitude; returns the codes'
/// sum.
inline std::int32_t store_codes(const Lanes (&group)[4], std::int8_t* codes) {
  __m256i whole[4];
  for (int i = 0; i < 4; ++i) whole[i] = _mm256_cvtps_epi32(group[i].v);
  const __m256i sums =
      _mm256_add_epi32(_mm256_add_epi32(whole[0], whole[1]), _mm256_add_epi32(whole[2], whole[3]));
  // Packing works within 128-bit halves; the permutation puts the 4-byte pieces back in order.
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_permutevar8x32_epi32(packed, order));
  __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
  return _mm_cvtsi128_si32(total);
}

}  // namespace
}  // namespace bidtrie
