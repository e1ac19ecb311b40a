#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "bidtrie/weights_tile.h"
#include "kernels_float.h"

// Quantized products on top of what each instruction set brings along in dots_*.h: Decoder, Dots, and how
// many units (what one register holds of a tile's 16 rows) and nodes its registers take at once.
//
// Rows are taken in blocks that stay in the second-level cache while the nodes pass over them, panel by
// panel; a panel's activations stay in the first-level cache while the tiles of a block pass over them.

namespace bidtrie {
namespace {

inline constexpr std::size_t kUnitsPerTile = kTileRows / Unit::kRows;

/// How groups of columns and blocks of 32 lie to each other.
enum class Grouping { kTwoInBlock, kOneBlock, kBlocks };

/// Where a matrix' tiles lie, and how they are cut.
struct Tiles {
  template <class Kind>
  Tiles(Kind kind, const MatrixView& w)
      : data(w.data),
        bytes(tile::tile_bytes(w.format, w.cols)),
        scales_bytes(tile::scales_bytes(w.format, w.cols)),
        blocks(tile::blocks(w.cols)),
        blocks_per_group(w.format.group / kBlock),
        bytes_per_block(bytes / blocks),
        decoder(kind, w.table) {}

  const std::uint8_t* data;
  std::size_t bytes, scales_bytes, blocks, blocks_per_group, bytes_per_block;
  Decoder decoder;
};

/// How far ahead of the weights at hand others are asked for. From 3 to 12 KiB does equally well.
inline constexpr std::size_t kAhead = 6144;

/// Asks for weights that a product of T tiles takes after the ones at hand, block by block. Where few nodes
/// share weights, memory is what a step waits for, and the loads that one core has under way do not keep
/// enough of it moving.
template <std::size_t kBytes, std::size_t T>
class Prefetch {
 public:
  /// From kAhead behind `tile` on, or, if `next` is given, from there.
  Prefetch(const Tiles& w, const std::uint8_t* tile, const std::uint8_t* next)
      : at_(next != nullptr ? next : tile + kAhead), end_(tile + w.bytes), tile_bytes_(w.bytes) {}

  void block(const Tiles& w) {
    // Behind a tile's end lie the others that are being read; what comes next is behind those.
    if (T > 1 && at_ >= end_) {
      at_ += (T - 1) * tile_bytes_;
      end_ = at_ + tile_bytes_ * T;
    }
#pragma GCC unroll 4
    for (std::size_t t = 0; t < T; ++t) {
#pragma GCC unroll 16
      for (std::size_t at = 0; at < kBytes; at += 64) __builtin_prefetch(at_ + t * tile_bytes_ + at);
    }
    at_ += w.bytes_per_block;
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
  std::size_t tile_bytes_;
};

/// Sums of T units, from number kFirst of the tile on, with the N nodes at `place` of a panel; `ahead` is
/// asked for meanwhile.
template <class Kind, Grouping kGrouping, std::size_t kFirst, std::size_t T, std::size_t N>
inline void unit_sums(const Tiles& w, const std::uint8_t* tile, const std::uint8_t* next, const PanelBlock* x,
                      std::size_t place, Unit (&sums)[T][N]) {
  constexpr bool kSplit = kGrouping == Grouping::kTwoInBlock;
  constexpr bool kMin = Kind::kCodes == Codes::kInt4Min;
  const auto scales_of = [&](const std::uint8_t* group, std::size_t t) {
    const std::size_t unit = kFirst + t;
    return Unit::load_halves(group + unit / kUnitsPerTile * w.bytes + unit % kUnitsPerTile * 2 * Unit::kRows);
  };
#pragma GCC unroll 8
  for (std::size_t t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) sums[t][n] = Unit::zero();
  }
  const std::uint8_t* scales = tile;
  const std::uint8_t* block = tile + w.scales_bytes;
  constexpr std::size_t block_bytes = tile::block_bytes({Kind::kCodes, Kind::kPattern, kBlock});
  constexpr std::size_t kGroupStride = kMin ? 2 * tile::kScaleBytes : tile::kScaleBytes;
  constexpr std::size_t kFetched = block_bytes + (kSplit ? 2 * kGroupStride : kGroupStride);
  constexpr std::size_t kTiles = ceil_div(T, kUnitsPerTile);
  Prefetch<kFetched, kTiles> prefetch(w, tile, next);

  if constexpr (kGrouping != Grouping::kBlocks) {
    for (std::size_t b = 0; b < w.blocks; ++b, block += block_bytes, ++x) {
      prefetch.block(w);
      const Dots<Kind, kSplit, kFirst, T, N> dots(block, w.bytes, *x, place, w.decoder);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < T; ++t) {
        const Unit w_scale = scales_of(scales, t);
        if constexpr (kSplit) {
          const Unit w_next = scales_of(scales + kGroupStride, t);
#pragma GCC unroll 8
          for (std::size_t n = 0; n < N; ++n) {
            const float x_scale = x->scale[place + n];
            sums[t][n] = fma(dots.first(t, n) * Unit::set(x_scale), w_scale, sums[t][n]);
            if constexpr (kMin) {
              sums[t][n] = fma(scales_of(scales + tile::kScaleBytes, t),
                               Unit::set(x_scale * static_cast<float>(x->first[place + n])), sums[t][n]);
            }
            sums[t][n] = fma(dots.last(t, n) * Unit::set(x_scale), w_next, sums[t][n]);
            if constexpr (kMin) {
              const std::int32_t last = x->minus8[place + n] / -8 - x->first[place + n];
              sums[t][n] = fma(scales_of(scales + kGroupStride + tile::kScaleBytes, t),
                               Unit::set(x_scale * static_cast<float>(last)), sums[t][n]);
            }
          }
        } else {
#pragma GCC unroll 8
          for (std::size_t n = 0; n < N; ++n) {
            sums[t][n] = fma(dots.all(t, n) * Unit::set(x->scale[place + n]), w_scale, sums[t][n]);
          }
          if constexpr (kMin) {
            const Unit w_min = scales_of(scales + tile::kScaleBytes, t);
#pragma GCC unroll 8
            for (std::size_t n = 0; n < N; ++n) {
              sums[t][n] = fma(w_min, Unit::set(x->sum[place + n]), sums[t][n]);
            }
          }
        }
      }
      scales += kSplit ? 2 * kGroupStride : kGroupStride;
    }
    return;
  }

  for (std::size_t b = 0; b < w.blocks; scales += kGroupStride) {
    const std::size_t end = b + w.blocks_per_group < w.blocks ? b + w.blocks_per_group : w.blocks;
    Unit parts[T][N];
    float x_sums[N] = {};
#pragma GCC unroll 8
    for (std::size_t t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (std::size_t n = 0; n < N; ++n) parts[t][n] = Unit::zero();
    }
    for (; b < end; ++b, block += block_bytes, ++x) {
      prefetch.block(w);
      const Dots<Kind, false, kFirst, T, N> dots(block, w.bytes, *x, place, w.decoder);
#pragma GCC unroll 8
      for (std::size_t n = 0; n < N; ++n) {
        const Unit x_scale = Unit::set(x->scale[place + n]);
#pragma GCC unroll 8
        for (std::size_t t = 0; t < T; ++t) {
          parts[t][n] = fma(dots.all(t, n), x_scale, parts[t][n]);
        }
        if constexpr (kMin) x_sums[n] += x->sum[place + n];
      }
    }
#pragma GCC unroll 8
    for (std::size_t t = 0; t < T; ++t) {
      const Unit w_scale = scales_of(scales, t);
#pragma GCC unroll 8
      for (std::size_t n = 0; n < N; ++n) sums[t][n] = fma(parts[t][n], w_scale, sums[t][n]);
      if constexpr (kMin) {
        const Unit w_min = scales_of(scales + tile::kScaleBytes, t);
#pragma GCC unroll 8
        for (std::size_t n = 0; n < N; ++n) sums[t][n] = fma(w_min, Unit::set(x_sums[n]), sums[t][n]);
      }
    }
  }
}

/// What a product writes, and how.
struct Target {
  float* out;
  std::size_t stride;
  const float* bias;
  bool accumulate;
};

/// Add the bias, and what is there if `accumulate`, and store the rows of a unit that exist.
inline void finish_unit(Unit value, const Target& target, std::size_t node, std::size_t row,
                        std::size_t row_end) {
  float* out = target.out + node * target.stride + row;
  if (row + Unit::kRows <= row_end) {
    if (target.bias != nullptr) value = value + Unit::load(target.bias + row);
    if (target.accumulate) value = Unit::load(out) + value;
    value.store(out);
    return;
  }
  float values[Unit::kRows];
  value.store(values);
  for (std::size_t i = 0; row + i < row_end; ++i) {
    finish(values[i], target.bias, row + i, target.accumulate, out + i);
  }
}

template <class Kind, Grouping kGrouping, std::size_t kFirst, std::size_t T, std::size_t N>
inline void units_times_nodes(const Tiles& w, std::size_t row, std::size_t row_end, const PanelBlock* x,
                              std::size_t place, std::size_t node, const Target& target) {
  Unit sums[T][N];
  const std::uint8_t* tile = w.data + row / kTileRows * w.bytes;
  unit_sums<Kind, kGrouping, kFirst, T, N>(w, tile, nullptr, x, place, sums);
#pragma GCC unroll 8
  for (std::size_t t = 0; t < T; ++t) {
    const std::size_t first = row + (kFirst + t) * Unit::kRows;
    if (first >= row_end) break;
#pragma GCC unroll 8
    for (std::size_t n = 0; n < N; ++n) finish_unit(sums[t][n], target, node + n, first, row_end);
  }
}

/// Rows [row_begin, row_end) times N nodes.
template <class Kind, Grouping kGrouping, std::size_t N>
void rows_times_nodes(const Tiles& w, std::size_t row_begin, std::size_t row_end, const PanelBlock* x,
                      std::size_t place, std::size_t node, const Target& target) {
  constexpr std::size_t kAtOnce = units_at_once(N);
  if constexpr (kAtOnce < kUnitsPerTile) {
    static_assert(kAtOnce == 1 && kUnitsPerTile == 2);
    for (std::size_t row = row_begin; row < row_end; row += kTileRows) {
      units_times_nodes<Kind, kGrouping, 0, 1, N>(w, row, row_end, x, place, node, target);
      if (row + Unit::kRows < row_end) {
        units_times_nodes<Kind, kGrouping, 1, 1, N>(w, row, row_end, x, place, node, target);
      }
    }
  } else {
    constexpr std::size_t kRows = kAtOnce * Unit::kRows;
    std::size_t row = row_begin;
    for (; row + kRows - kTileRows < row_end; row += kRows) {
      units_times_nodes<Kind, kGrouping, 0, kAtOnce, N>(w, row, row_end, x, place, node, target);
    }
    if constexpr (kAtOnce > kUnitsPerTile) {
      if (row < row_end) {
        units_times_nodes<Kind, kGrouping, 0, kUnitsPerTile, N>(w, row, row_end, x, place, node, target);
      }
    }
  }
}

template <class Kind, Grouping kGrouping>
inline void rows_times_count(std::size_t count, const Tiles& w, std::size_t row_begin, std::size_t row_end,
                             const PanelBlock* x, std::size_t place, std::size_t node, const Target& target) {
  using Rows = void (*)(const Tiles&, std::size_t, std::size_t, const PanelBlock*, std::size_t, std::size_t,
                        const Target&);
  static constexpr auto kTable = []<std::size_t... kN>(std::index_sequence<kN...>) {
    return std::array<Rows, sizeof...(kN)>{rows_times_nodes<Kind, kGrouping, kN + 1>...};
  }(std::make_index_sequence<kNodesAtOnce>());
  kTable[count - 1](w, row_begin, row_end, x, place, node, target);
}

/// Nodes of the next tile, so that the tiles of `left` nodes differ by one at most.
inline std::size_t next_nodes(std::size_t left) {
  return ceil_div(left, ceil_div(left, kNodesAtOnce));
}

template <class Kind, Grouping kGrouping>
void linear_packed(const MatrixView& matrix, std::size_t row_begin, std::size_t row_end, const Activations& x,
                   std::size_t nodes, const Target& target) {
  const Tiles w(Kind{}, matrix);
  for (std::size_t row = row_begin; row < row_end; row += kBlockRows) {
    const std::size_t end = row + kBlockRows < row_end ? row + kBlockRows : row_end;
    for (std::size_t node = 0; node < nodes;) {
      const std::size_t at = x.first + node, place = at % kPanel;
      const std::size_t in_panel = nodes - node < kPanel - place ? nodes - node : kPanel - place;
      const std::size_t count = next_nodes(in_panel);
      rows_times_count<Kind, kGrouping>(count, w, row, end, x.panels + at / kPanel * x.blocks, place, node,
                                        target);
      node += count;
    }
  }
}

template <class Kind, Grouping kGrouping>
void rows_packed(const MatrixView& matrix, const std::int32_t* ids, std::size_t count, const Activations& x,
                 float* out, const float* bias) {
  const Tiles w(Kind{}, matrix);
  const PanelBlock* panel = x.panels + x.first / kPanel * x.blocks;
  const std::size_t place = x.first % kPanel;
  const auto tile_of = [&](std::size_t i) {
    return w.data + static_cast<std::size_t>(ids[i]) / kTileRows * w.bytes;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(ids[i]);
    const std::uint8_t *tile = tile_of(i), *next = tile_of(i + 1 < count ? i + 1 : i);
    // The unit that the row is in, its neighbours for nothing.
    Unit sums[1][1];
    if (row % kTileRows < Unit::kRows) {
      unit_sums<Kind, kGrouping, 0, 1, 1>(w, tile, next, panel, place, sums);
    } else if constexpr (kUnitsPerTile > 1) {
      unit_sums<Kind, kGrouping, 1, 1, 1>(w, tile, next, panel, place, sums);
    }
    float rows[Unit::kRows];
    sums[0][0].store(rows);
    finish(rows[row % Unit::kRows], bias, row, false, out + i);
  }
}

/// Call f with the Grouping of a format.
template <class F>
inline void with_grouping(std::size_t group, F f) {
  if (group == kBlock / 2) return f(std::integral_constant<Grouping, Grouping::kTwoInBlock>{});
  if (group == kBlock) return f(std::integral_constant<Grouping, Grouping::kOneBlock>{});
  f(std::integral_constant<Grouping, Grouping::kBlocks>{});
}

inline void linear(const MatrixView& w, std::size_t row_begin, std::size_t row_end, const Activations& x,
                   std::size_t nodes, float* out, std::size_t out_stride, const float* bias,
                   bool accumulate) {
  if (!w.format.is_quantized())
    return linear_float32(w, row_begin, row_end, x, nodes, out, out_stride, bias, accumulate);
  with_kind(w.format, [&]<class Kind>(Kind) {
    with_grouping(w.format.group, [&]<Grouping kGrouping>(std::integral_constant<Grouping, kGrouping>) {
      linear_packed<Kind, kGrouping>(w, row_begin, row_end, x, nodes, {out, out_stride, bias, accumulate});
    });
  });
}

inline void rows(const MatrixView& w, const std::int32_t* ids, std::size_t count, const Activations& x,
                 float* out, const float* bias) {
  if (!w.format.is_quantized()) return rows_float32(w, ids, count, x, out, bias);
  with_kind(w.format, [&]<class Kind>(Kind) {
    with_grouping(w.format.group, [&]<Grouping kGrouping>(std::integral_constant<Grouping, kGrouping>) {
      rows_packed<Kind, kGrouping>(w, ids, count, x, out, bias);
    });
  });
}

}  // namespace
}  // namespace bidtrie
