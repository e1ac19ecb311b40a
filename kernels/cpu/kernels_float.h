#pragma once

#include <cstddef>
#include <cstdint>

#include "bidtrie/weights_float32.h"
#include "kernels.h"

// Kernels on float lanes, compiled once for each instruction set: include lanes_*.h first. Everything here
// and there sits in unnamed namespaces, so that no function compiled for AVX2 can stand in for a portable one
// at link time.

namespace bidtrie {
namespace {

/// e^x to about 2 units in the last place, x cut to ±87.3. Cephes' expf (S. Moshier): e^x = 2^n e^r with
/// n = round(x / ln 2), ln 2 in two parts, and a polynomial for e^r.
inline Lanes exp(Lanes x) {
  x = min(Lanes::set(88.3f), max(Lanes::set(-87.3f), x));
  const Lanes magic = Lanes::set(0x1.8p23f);
  const Lanes rounded = fma(x, Lanes::set(1.44269504088896341f), magic);
  const Lanes n = rounded - magic;
  Lanes r = fma(n, Lanes::set(-0.693359375f), x);
  r = fma(n, Lanes::set(2.12194440e-4f), r);
  Lanes p = Lanes::set(1.9875691500e-4f);
  p = fma(p, r, Lanes::set(1.3981999507e-3f));
  p = fma(p, r, Lanes::set(8.3334519073e-3f));
  p = fma(p, r, Lanes::set(4.1665795894e-2f));
  p = fma(p, r, Lanes::set(1.6666665459e-1f));
  p = fma(p, r, Lanes::set(5.0000001201e-1f));
  p = fma(p, r * r, r) + Lanes::set(1.0f);
  return p * exp2_of_rounded(rounded);
}

/// Add the bias, and what is there if `accumulate`, and store.
inline void finish(float value, const float* bias, std::size_t row, bool accumulate, float* out) {
  if (bias != nullptr) value += bias[row];
  *out = accumulate ? *out + value : value;
}

/// The same for the 8 rows of a tile, of which the first `rows` exist.
inline void finish_tile(Lanes value, const float* bias, std::size_t row, std::size_t rows, bool accumulate,
                        float* out) {
  if (rows == kTileRows) {
    if (bias != nullptr) value = value + Lanes::load(bias + row);
    if (accumulate) value = Lanes::load(out) + value;
    value.store(out);
    return;
  }
  float values[kTileRows];
  value.store(values);
  for (std::size_t i = 0; i < rows; ++i) finish(values[i], bias, row + i, accumulate, out + i);
}

/// Rows whose packed weights stay in the first-level cache while every node passes over them.
inline constexpr std::size_t kBlockRows = 32;

/// R rows by N nodes of a float32 product: one accumulator each, over columns in order.
template <std::size_t R, std::size_t N>
inline void float32_tile(const MatrixView& w, std::size_t row, const Activations& x, std::size_t node,
                         float* out, std::size_t out_stride, const float* bias, bool accumulate) {
  Lanes sums[R][N];
  const float* from[R];
  for (std::size_t r = 0; r < R; ++r) {
    from[r] = float32::row(w.data, w.cols, row + r);
    for (std::size_t n = 0; n < N; ++n) sums[r][n] = Lanes::zero();
  }
  const float* values = x.values + node * x.stride;
  for (std::size_t c = 0; c < w.cols; c += kLanes) {
    Lanes inputs[N];
    for (std::size_t n = 0; n < N; ++n) inputs[n] = Lanes::load(values + n * x.stride + c);
    for (std::size_t r = 0; r < R; ++r) {
      const Lanes weights = Lanes::load(from[r] + c);
      for (std::size_t n = 0; n < N; ++n) sums[r][n] = fma(weights, inputs[n], sums[r][n]);
    }
  }
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t r = 0; r < R; ++r) {
      finish(horizontal_sum(sums[r][n]), bias, row + r, accumulate, out + (node + n) * out_stride + row + r);
    }
  }
}

template <std::size_t R>
inline void float32_rows(const MatrixView& w, std::size_t row, const Activations& x, std::size_t node,
                         std::size_t count, float* out, std::size_t out_stride, const float* bias,
                         bool accumulate) {
  switch (count) {
    case 3:
      return float32_tile<R, 3>(w, row, x, node, out, out_stride, bias, accumulate);
    case 2:
      return float32_tile<R, 2>(w, row, x, node, out, out_stride, bias, accumulate);
    default:
      return float32_tile<R, 1>(w, row, x, node, out, out_stride, bias, accumulate);
  }
}

inline void linear_float32(const MatrixView& w, std::size_t row_begin, std::size_t row_end,
                           const Activations& x, std::size_t nodes, float* out, std::size_t out_stride,
                           const float* bias, bool accumulate) {
  for (std::size_t block = row_begin; block < row_end; block += kBlockRows) {
    const std::size_t block_end = block + kBlockRows < row_end ? block + kBlockRows : row_end;
    for (std::size_t node = 0; node < nodes; node += 3) {
      const std::size_t count = nodes - node < 3 ? nodes - node : 3;
      std::size_t row = block;
      for (; row + 4 <= block_end; row += 4) {
        float32_rows<4>(w, row, x, node, count, out, out_stride, bias, accumulate);
      }
      for (; row < block_end; ++row) {
        float32_rows<1>(w, row, x, node, count, out, out_stride, bias, accumulate);
      }
    }
  }
}

inline void rows_float32(const MatrixView& w, const std::int32_t* ids, std::size_t count,
                         const Activations& x, float* out, const float* bias) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(ids[i]);
    const float* from = float32::row(w.data, w.cols, row);
    Lanes sum = Lanes::zero();
    for (std::size_t c = 0; c < w.cols; c += kLanes)
      sum = fma(Lanes::load(from + c), Lanes::load(x.values + c), sum);
    finish(horizontal_sum(sum), bias, row, false, out + i);
  }
}

inline void quantize(const float* x, std::size_t groups, std::int8_t* codes, float* scale, float* sum) {
  for (std::size_t g = 0; g < groups; ++g, x += kGroup, codes += kGroup) {
    Lanes group[4];
    for (std::size_t i = 0; i < 4; ++i) group[i] = Lanes::load(x + i * kLanes);
    const float largest =
        horizontal_max(max(max(abs(group[0]), abs(group[1])), max(abs(group[2]), abs(group[3]))));
    const bool zeros = largest < 1e-30f;  // 127 / largest would overflow
    const Lanes inverse = Lanes::set(zeros ? 0.0f : 127.0f / largest);
    for (Lanes& lanes : group) lanes = lanes * inverse;
    scale[g] = zeros ? 0.0f : largest / 127.0f;
    sum[g] = scale[g] * static_cast<float>(store_codes(group, codes));
  }
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, std::size_t padded,
                     float* out) {
  Lanes squares = Lanes::zero();
  for (std::size_t i = 0; i < padded; i += kLanes)
    squares = fma(Lanes::load(x + i), Lanes::load(x + i), squares);
  const float mean = horizontal_sum(squares) / static_cast<float>(n);
  const Lanes factor = Lanes::set(1.0f / __builtin_sqrtf(mean + eps));
  for (std::size_t i = 0; i < padded; i += kLanes) {
    (Lanes::load(x + i) * factor * Lanes::load(weight + i)).store(out + i);
  }
}

inline void swiglu(float* gate, const float* up, std::size_t padded) {
  for (std::size_t i = 0; i < padded; i += kLanes) {
    const Lanes g = Lanes::load(gate + i);
    const Lanes silu = g / (Lanes::set(1.0f) + exp(Lanes::zero() - g));
    (silu * Lanes::load(up + i)).store(gate + i);
  }
}

/// One head's weighted sum of values over D vectors of components, in order of position.
template <std::size_t D>
inline void weigh_values(const AttentionContext& context, const float* weights, std::size_t at, Lanes factor,
                         float* out) {
  Lanes sums[D];
  for (std::size_t d = 0; d < D; ++d) sums[d] = Lanes::zero();
  for (std::size_t i = 0; i < context.count; ++i) {
    const float* value = context.values + static_cast<std::size_t>(context.slots[i]) * context.stride + at;
    const Lanes weight = Lanes::set(weights[i]);
    for (std::size_t d = 0; d < D; ++d) sums[d] = fma(weight, Lanes::load(value + d * kLanes), sums[d]);
  }
  for (std::size_t d = 0; d < D; ++d) (sums[d] * factor).store(out + at + d * kLanes);
}

inline void attention(const float* q, const AttentionContext& context, std::size_t padded_head_dim,
                      float* scores, float* out) {
  const std::size_t count = context.count;
  Lanes largest = Lanes::set(-__builtin_inff());
  for (std::size_t i = 0; i < count; i += kLanes) {
    const float* key[kLanes];
    for (std::size_t j = 0; j < kLanes; ++j) {
      // Lanes beyond the end repeat the last position: they do not change the maximum.
      const std::size_t position = i + j < count ? i + j : count - 1;
      key[j] = context.keys + static_cast<std::size_t>(context.slots[position]) * context.stride;
    }
    Lanes sums[kLanes];
    for (Lanes& sum : sums) sum = Lanes::zero();
    for (std::size_t d = 0; d < padded_head_dim; d += kLanes) {
      const Lanes query = Lanes::load(q + d);
      for (std::size_t j = 0; j < kLanes; ++j) sums[j] = fma(query, Lanes::load(key[j] + d), sums[j]);
    }
    const Lanes score = horizontal_sums(sums);
    largest = max(largest, score);
    score.store(scores + i);
  }
  const Lanes top = Lanes::set(horizontal_max(largest));
  Lanes total = Lanes::zero();
  for (std::size_t i = 0; i < count; i += kLanes) {
    exp(Lanes::load(scores + i) - top).store(scores + i);
    for (std::size_t j = count; j < i + kLanes; ++j) scores[j] = 0.0f;
    total = total + Lanes::load(scores + i);
  }
  const Lanes factor = Lanes::set(1.0f / horizontal_sum(total));
  std::size_t at = 0;
  for (; at + 8 * kLanes <= padded_head_dim; at += 8 * kLanes)
    weigh_values<8>(context, scores, at, factor, out);
  for (; at + 4 * kLanes <= padded_head_dim; at += 4 * kLanes)
    weigh_values<4>(context, scores, at, factor, out);
  for (; at < padded_head_dim; at += kLanes) weigh_values<1>(context, scores, at, factor, out);
}

inline void sum_exp(const float* x, std::size_t n, float* largest, double* sum) {
  const std::size_t whole = n / kLanes * kLanes;
  Lanes maxima = Lanes::set(x[0]);
  for (std::size_t i = 0; i < whole; i += kLanes) maxima = max(maxima, Lanes::load(x + i));
  float top = horizontal_max(maxima);
  for (std::size_t i = whole; i < n; ++i) top = x[i] > top ? x[i] : top;

  DoubleSum total;
  for (std::size_t i = 0; i < whole; i += kLanes) total.add(exp(Lanes::load(x + i) - Lanes::set(top)));
  double rest = 0;
  for (std::size_t i = whole; i < n; ++i) {
    float lanes[kLanes];
    exp(Lanes::set(x[i] - top)).store(lanes);
    rest += static_cast<double>(lanes[0]);
  }
  *largest = top;
  *sum = total.total() + rest;
}

}  // namespace
}  // namespace bidtrie
