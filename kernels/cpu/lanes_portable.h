#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bidtrie/half.h"

// Sixteen float lanes in plain C++, operation for operation what the vector versions do.

namespace bidtrie {
namespace {

struct Lanes {
  static constexpr int kRows = 16;
  float v[16];

  static Lanes zero() { return set(0.0f); }
  static Lanes set(float x) {
    Lanes a;
    for (float& lane : a.v) lane = x;
    return a;
  }
  static Lanes load(const float* p) {
    Lanes a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  static Lanes load_halves(const void* p) {
    std::uint16_t halves[16];
    std::memcpy(halves, p, sizeof halves);
    Lanes a;
    for (int i = 0; i < 16; ++i) a.v[i] = half_to_float(halves[i]);
    return a;
  }
  void store(float* p) const { std::memcpy(p, v, sizeof v); }
  void store_halves(std::uint16_t* p) const {
    for (int i = 0; i < 16; ++i) p[i] = float_to_half(v[i]);
  }
};

using Unit = Lanes;

/// Rows and nodes of a float32 tile.
inline constexpr std::size_t kFloatRows = 2, kFloatNodes = 2;

template <class Op>
inline Lanes lanewise(const Lanes& a, const Lanes& b, Op op) {
  Lanes c;
  for (int i = 0; i < 16; ++i) c.v[i] = op(a.v[i], b.v[i]);
  return c;
}

inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return lanewise(a, b, [](float x, float y) { return x + y; });
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
  return lanewise(a, b, [](float x, float y) { return x - y; });
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
  return lanewise(a, b, [](float x, float y) { return x * y; });
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return lanewise(a, b, [](float x, float y) { return x / y; });
}
inline Lanes max(const Lanes& a, const Lanes& b) {
  return lanewise(a, b, [](float x, float y) { return x > y ? x : y; });
}
inline Lanes min(const Lanes& a, const Lanes& b) {
  return lanewise(a, b, [](float x, float y) { return x < y ? x : y; });
}
inline Lanes abs(const Lanes& a) {
  return lanewise(a, a, [](float x, float) { return __builtin_fabsf(x); });
}

/// a * b + c, rounded once.
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
  Lanes d;
  for (int i = 0; i < 16; ++i) d.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return d;
}

/// 2^n for lanes that hold 1.5 * 2^23 + n, n from -126 to 127.
inline Lanes exp2_of_rounded(const Lanes& a) {
  Lanes b;
  for (int i = 0; i < 16; ++i)
    b.v[i] = std::bit_cast<float>((std::bit_cast<std::uint32_t>(a.v[i]) + 127u) << 23);
  return b;
}

inline float horizontal_max(const Lanes& a) {
  float largest = a.v[0];
  for (int i = 1; i < 16; ++i) largest = largest > a.v[i] ? largest : a.v[i];
  return largest;
}

/// With s[i] = a[i] + a[i + 8]: ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)).
inline float horizontal_sum(const Lanes& a) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = a.v[i] + a.v[i + 8];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/// Lane i is horizontal_sum(a[i]).
inline Lanes horizontal_sums(const Lanes* a) {
  Lanes sums;
  for (int i = 0; i < 16; ++i) sums.v[i] = horizontal_sum(a[i]);
  return sums;
}

/// Adds the sixteen lanes, in halves, to eight running sums in double.
struct DoubleSum {
  double v[8] = {0, 0, 0, 0, 0, 0, 0, 0};

  void add(const Lanes& a) {
    for (int i = 0; i < 8; ++i) v[i] += static_cast<double>(a.v[i]);
    for (int i = 0; i < 8; ++i) v[i] += static_cast<double>(a.v[i + 8]);
  }
  double total() const { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }
};

/// Store round-to-nearest-even of 16 lanes, each at most 127.5 in magnitude; returns the codes' sum.
inline std::int32_t store_codes(const Lanes& a, std::int8_t* codes) {
  std::int32_t sum = 0;
  for (int i = 0; i < 16; ++i) {
    // Adding 1.5 * 2^23 leaves the rounded integer in the lowest bits.
    codes[i] = static_cast<std::int8_t>(std::bit_cast<std::uint32_t>(a.v[i] + 0x1.8p23f) & 255u);
    sum += codes[i];
  }
  return sum;
}

}  // namespace
}  // namespace bidtrie
