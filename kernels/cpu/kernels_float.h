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

/// Rows whose packed weights stay near while every node passes over them.
inline constexpr std::size_t kBlockRows = 64;

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
  const float* values = x.values + (x.first + node) * x.stride;
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

template <std::size_t R, std::size_t N>
inline void float32_rows(const MatrixView& w, std::size_t row, const Activations& x, std::size_t node,
                         std::size_t count, float* out, std::size_t out_stride, const float* bias,
                         bool accumulate) {
  if constexpr (N > 1) {
    if (count < N) return float32_rows<R, N - 1>(w, row, x, node, count, out, out_stride, bias, accumulate);
  }
  float32_tile<R, N>(w, row, x, node, out, out_stride, bias, accumulate);
}

inline void linear_float32(const MatrixView& w, std::size_t row_begin, std::size_t row_end,
                           const Activations& x, std::size_t nodes, float* out, std::size_t out_stride,
                           const float* bias, bool accumulate) {
  for (std::size_t block = row_begin; block < row_end; block += kBlockRows) {
    const std::size_t block_end = block + kBlockRows < row_end ? block + kBlockRows : row_end;
    for (std::size_t node = 0; node < nodes; node += kFloatNodes) {
      const std::size_t count = nodes - node < kFloatNodes ? nodes - node : kFloatNodes;
      std::size_t row = block;
      for (; row + kFloatRows <= block_end; row += kFloatRows) {
        float32_rows<kFloatRows, kFloatNodes>(w, row, x, node, count, out, out_stride, bias, accumulate);
      }
      for (; row < block_end; ++row) {
        float32_rows<1, kFloatNodes>(w, row, x, node, count, out, out_stride, bias, accumulate);
      }
    }
  }
}

inline void rows_float32(const MatrixView& w, const std::int32_t* ids, std::size_t count,
                         const Activations& x, float* out, const float* bias) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(ids[i]);
    const float* from = float32::row(w.data, w.cols, row);
    const float* values = x.values + x.first * x.stride;
    Lanes sum = Lanes::zero();
    for (std::size_t c = 0; c < w.cols; c += kLanes)
      sum = fma(Lanes::load(from + c), Lanes::load(values + c), sum);
    finish(horizontal_sum(sum), bias, row, false, out + i);
  }
}

inline void quantize(const float* x, std::size_t blocks, PanelBlock* out, std::size_t place) {
  for (std::size_t b = 0; b < blocks; ++b, x += kBlock, ++out) {
    const Lanes first = Lanes::load(x), last = Lanes::load(x + kLanes);
    const float largest = horizontal_max(max(abs(first), abs(last)));
    const bool zeros = largest < 1e-30f;  // 127 / largest would overflow
    const Lanes inverse = Lanes::set(zeros ? 0.0f : 127.0f / largest);
    const std::int32_t sum_first = store_codes(first * inverse, out->codes[place]),
                       sum = sum_first + store_codes(last * inverse, out->codes[place] + kLanes);
    out->scale[place] = zeros ? 0.0f : largest / 127.0f;
    out->sum[place] = out->scale[place] * static_cast<float>(sum);
    out->minus8[place] = -8 * sum;
    out->first[place] = sum_first;
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

inline void to_half(const float* x, std::size_t padded, std::uint16_t* out) {
  const Lanes largest = Lanes::set(65504.0f), smallest = Lanes::set(-65504.0f);
  for (std::size_t i = 0; i < padded; i += kLanes) {
    min(largest, max(smallest, Lanes::load(x + i))).store_halves(out + i);
  }
}

/// Copy the rows of `count` slots, as floats, behind each other.
inline void gather(const void* rows, const std::int32_t* slots, std::size_t count, std::size_t stride,
                   bool half, std::size_t padded, float* out) {
  for (std::size_t i = 0; i < count; ++i, out += padded) {
    const std::size_t at = static_cast<std::size_t>(slots[i]) * stride;
    if (half) {
      const auto* row = static_cast<const std::uint16_t*>(rows) + at;
      for (std::size_t d = 0; d < padded; d += kLanes) Lanes::load_halves(row + d).store(out + d);
    } else {
      const auto* row = static_cast<const float*>(rows) + at;
      for (std::size_t d = 0; d < padded; d += kLanes) Lanes::load(row + d).store(out + d);
    }
  }
}

/// Add the weighted values of D vectors of components, in order of position.
template <std::size_t D>
inline void weigh_values(const float* values, std::size_t padded, const float* weights, std::size_t count,
                         float* out) {
  Lanes sums[D];
#pragma GCC unroll 4
  for (std::size_t d = 0; d < D; ++d) sums[d] = Lanes::load(out + d * kLanes);
  for (std::size_t j = 0; j < count; ++j) {
    const Lanes weight = Lanes::set(weights[j]);
#pragma GCC unroll 4
    for (std::size_t d = 0; d < D; ++d) {
      sums[d] = fma(weight, Lanes::load(values + j * padded + d * kLanes), sums[d]);
    }
  }
#pragma GCC unroll 4
  for (std::size_t d = 0; d < D; ++d) sums[d].store(out + d * kLanes);
}

/// Take up to 32 positions into one query's state and sums.
inline void attend_block(const float* query, const float* keys, const float* values, std::size_t count,
                         std::size_t padded, AttentionState& state, float* sums) {
  static_assert(kAttentionBlock == 2 * kLanes);
  alignas(64) float weights[kAttentionBlock];
  const float absent = -__builtin_inff();
  Lanes largest = Lanes::set(absent);
  for (std::size_t i = 0; i < kAttentionBlock; i += kLanes) {
    Lanes products[kLanes];
    for (std::size_t j = 0; j < kLanes; ++j) {
      // Lanes beyond the end repeat the last position: they do not change the maximum.
      const float* key = keys + (i + j < count ? i + j : count - 1) * padded;
      products[j] = Lanes::load(query) * Lanes::load(key);
      for (std::size_t d = kLanes; d < padded; d += kLanes) {
        products[j] = fma(Lanes::load(query + d), Lanes::load(key + d), products[j]);
      }
    }
    const Lanes scores = horizontal_sums(products);
    largest = max(largest, scores);
    scores.store(weights + i);
  }
  const float before = state.largest, block = horizontal_max(largest), top = block > before ? block : before;
  state.largest = top;
  const Lanes low = exp(Lanes::load(weights) - Lanes::set(top)),
              high = exp(Lanes::load(weights + kLanes) - Lanes::set(top));
  low.store(weights);
  high.store(weights + kLanes);
  for (std::size_t j = count; j < kAttentionBlock; ++j) weights[j] = 0.0f;
  if (top > before) {
    float factors[kLanes];
    exp(Lanes::set(before - top)).store(factors);
    state.total *= factors[0];
    for (std::size_t d = 0; d < padded; d += kLanes) {
      (Lanes::load(sums + d) * Lanes::set(factors[0])).store(sums + d);
    }
  }
  state.total += horizontal_sum(Lanes::load(weights) + Lanes::load(weights + kLanes));
  std::size_t d = 0;
  for (; d + 4 * kLanes <= padded; d += 4 * kLanes)
    weigh_values<4>(values + d, padded, weights, count, sums + d);
  for (; d < padded; d += kLanes) weigh_values<1>(values + d, padded, weights, count, sums + d);
}

inline void attend(const float* queries, std::size_t count, const AttentionContext& context,
                   std::size_t begin, std::size_t end, bool half, std::size_t padded, float* scratch,
                   AttentionState* states, float* sums) {
  if (begin == 0) {
    for (std::size_t q = 0; q < count; ++q) states[q] = {-__builtin_inff(), 0.0f};
    for (std::size_t i = 0; i < count * padded; i += kLanes) Lanes::zero().store(sums + i);
  }
  float* keys = scratch;
  float* values = scratch + kAttentionBlock * padded;
  for (std::size_t at = begin; at < end; at += kAttentionBlock) {
    const std::size_t size = end - at < kAttentionBlock ? end - at : kAttentionBlock;
    gather(context.keys, context.slots + at, size, context.stride, half, padded, keys);
    gather(context.values, context.slots + at, size, context.stride, half, padded, values);
    for (std::size_t q = 0; q < count; ++q) {
      attend_block(queries + q * padded, keys, values, size, padded, states[q], sums + q * padded);
    }
  }
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

inline float read_all(const float* x, std::size_t n) {
  Lanes a = Lanes::zero(), b = a, c = a, d = a;
  for (std::size_t i = 0; i < n; i += 4 * kLanes) {
    for (std::size_t at = 0; at < 4 * kLanes; at += kLanes) __builtin_prefetch(x + i + 1536 + at);
    a = a + Lanes::load(x + i);
    b = b + Lanes::load(x + i + kLanes);
    c = c + Lanes::load(x + i + 2 * kLanes);
    d = d + Lanes::load(x + i + 3 * kLanes);
  }
  return horizontal_sum((a + b) + (c + d));
}

}  // namespace
}  // namespace bidtrie
