#pragma once

#include "bidtrie/half.h"
#include "lanes_portable.h"

namespace bidtrie {
namespace {

inline std::uint16_t load_half(const std::uint8_t* p) {
  std::uint16_t half;
  std::memcpy(&half, p, 2);
  return half;
}

inline float q8_scale(const std::uint8_t* p) {
  return half_to_float(load_half(p));
}

inline Lanes tile_scales(const std::uint8_t* p) {
  Lanes scales;
  for (int i = 0; i < 8; ++i) scales.v[i] = half_to_float(load_half(p + 2 * i));
  return scales;
}

template <std::size_t T, std::size_t N>
class Q4Dots {
 public:
  Q4Dots(const std::uint8_t* w, std::size_t tile_bytes, const std::int8_t* x, std::size_t stride) {
    for (std::size_t t = 0; t < T; ++t) {
      for (std::size_t n = 0; n < N; ++n) {
        for (std::size_t r = 0; r < 8; ++r)
          dots_[t][n].v[r] = dot(w + t * tile_bytes + 4 * r, x + n * stride);
      }
    }
  }
  const Lanes& lanes(std::size_t t, std::size_t n) const { return dots_[t][n]; }

 private:
  static float dot(const std::uint8_t* w, const std::int8_t* x) {
    std::int32_t sum = 0;
    for (std::size_t v = 0; v < 4; ++v) {
      for (std::size_t b = 0; b < 4; ++b) {
        const std::uint8_t codes = w[32 * v + b];
        sum += (codes & 15) * x[4 * v + b] + (codes >> 4) * x[16 + 4 * v + b];
      }
    }
    return static_cast<float>(sum);
  }

  Lanes dots_[T][N];
};

inline Lanes q8_dots(const std::uint8_t* w, const std::int8_t* x) {
  Lanes dots;
  for (int i = 0; i < 8; ++i) {
    std::int32_t sum = 0;
    for (int j = 4 * i; j < 4 * i + 4; ++j) sum += static_cast<std::int8_t>(w[j]) * x[j];
    dots.v[i] = static_cast<float>(sum);
  }
  return dots;
}

}  // namespace
}  // namespace bidtrie
