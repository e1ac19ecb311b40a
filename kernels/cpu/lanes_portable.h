#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

// Eight float lanes in plain C++, operation for operation what lanes_avx2.h does in one vector.

namespace bidtrie {
namespace {

struct Lanes {
  float v[8];

  static Lanes zero() { return set(0.0f); }
  static Lanes set(float x) { return {{x, x, x, x, x, x, x, x}}; }
  static Lanes load(const float* p) {
    Lanes a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  void store(float* p) const { std::memcpy(p, v, sizeof v); }
};

template <class Op>
inline Lanes lanewise(const Lanes& a, const Lanes& b, Op op) {
  Lanes c;
  for (int i = 0; i < 8; ++i) c.v[i] = op(a.v[i], b.v[i]);
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
  for (int i = 0; i < 8; ++i) d.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return d;
}

/// 2^n for lanes that hold 1.5 * 2^23 + n, n from -126 to 127.
inline Lanes exp2_of_rounded(const Lanes& a) {
  Lanes b;
  for (int i = 0; i < 8; ++i)
    b.v[i] = std::bit_cast<float>((std::bit_cast<std::uint32_t>(a.v[i]) + 127u) << 23);
  return b;
}

inline float horizontal_max(const Lanes& a) {
  float largest = a.v[0];
  for (int i = 1; i < 8; ++i) largest = largest > a.v[i] ? largest : a.v[i];
  return largest;
}

/// ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
inline float horizontal_sum(const Lanes& a) {
  return ((a.v[0] + a.v[1]) + (a.v[2] + a.v[3])) + ((a.v[4] + a.v[5]) + (a.v[6] + a.v[7]));
}

/// Lane i is horizontal_sum(a[i]).
inline Lanes horizontal_sums(const Lanes* a) {
  Lanes sums;
  for (int i = 0; i < 8; ++i) sums.v[i] = horizontal_sum(a[i]);
  return sums;
}

/// Add the eight lanes, in two halves, to four running sums in double.
struct DoubleSum {
  double v[4] = {0, 0, 0, 0};

  void add(const Lanes& a) {
    for (int i = 0; i < 4; ++i) v[i] += static_cast<double>(a.v[i]);
    for (int i = 0; i < 4; ++i) v[i] += static_cast<double>(a.v[i + 4]);
  }
  double total() const { return (v[0] + v[1]) + (v[2] + v[3]); }
};

/// Store round-to-nearest-even of the lanes of one group, each at most 127.5 in magnitude; returns the codes'
/// sum.
inline std::int32_t store_codes(const Lanes (&group)[4], std::int8_t* codes) {
  std::int32_t sum = 0;
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 8; ++j) {
      // Adding 1.5 * 2^23 leaves the rounded integer in the lowest bits.
      const auto code =
          static_cast<std::int8_t>(std::bit_cast<std::uint32_t>(group[i].v[j] + 0x1.8p23f) & 255u);
      codes[8 * i + j] = code;
      sum += code;
    }
  }
  return sum;
}

}  // namespace
}  // namespace bidtrie
