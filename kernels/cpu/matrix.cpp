#include "matrix.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "bidtrie/error.h"
#include "bidtrie/half.h"
#include "bidtrie/weights_float32.h"
#include "bidtrie/weights_int4.h"
#include "bidtrie/weights_int8.h"
#include "bidtrie/weights_sparse.h"

namespace bidtrie {
namespace {

constexpr std::size_t kGgufGroup = 32, kQ4_1Bytes = 20, kQ8_0Bytes = 34;

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text;
  for (const std::size_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

void expect_bytes(const std::string& name, const char* what, std::size_t bytes, std::size_t expected) {
  if (bytes != expected)
    throw ModelError(message(name, ": ", bytes, " bytes", what, ", expected ", expected));
}

std::size_t weights_of(const std::string& name, const std::vector<std::size_t>& shape) {
  std::size_t weights = 1;
  for (const std::size_t n : shape) {
    // Far above any model, far below what overflows in sizes derived from it.
    if (n == 0 || n > std::numeric_limits<std::uint32_t>::max() || weights > (std::size_t{1} << 48) / n) {
      throw ModelError(message(name, ": impossible shape ", shape_text(shape)));
    }
    weights *= n;
  }
  return weights;
}

void check_groups(const std::string& name, const TensorSource& source) {
  const WeightFormat& format = source.format;
  if (!format.is_quantized() || !is_supported(format)) {
    throw ModelError(
        message(name, ": codes, pattern and groups of ", format.group, " columns that do not go together"));
  }
  const std::size_t rows = source.shape[0], cols = source.shape[1];
  const std::size_t kept = cols / 4 * kept_of_four(format.pattern), groups = tile::groups(format, cols);
  const bool sparse = format.pattern != Pattern::kDense;
  expect_bytes(name, " of codes", source.data.size(),
               rows * (format.codes == Codes::kInt8 ? kept : kept / 2));
  expect_bytes(name, " of scales", source.scales.size(), 2 * rows * groups);
  expect_bytes(name, " of minimums", source.minimums.size(),
               format.codes == Codes::kInt4Min ? 2 * rows * groups : 0);
  expect_bytes(name, " of positions", source.positions.size(), sparse ? rows * kept / 4 : 0);
  if (format.codes == Codes::kInt4Table) {
    for (const std::int8_t entry : source.table) {
      if (entry < -kTableShift || entry > kTableShift) {
        throw ModelError(message(name, ": table entry ", int{entry}, ", expected -32 to 32"));
      }
    }
  }
  if (format.pattern == Pattern::k2of4) {
    // A column that came twice would be counted once here and twice elsewhere.
    for (const std::uint8_t four : source.positions) {
      if ((four & 3) >= (four >> 2 & 3) || (four >> 4 & 3) >= four >> 6) {
        throw ModelError(message(name, ": positions that do not rise within their four columns"));
      }
    }
  }
}

/// One row of a quantized matrix as artefacts store it, taken apart.
struct RowCodes {
  const std::uint8_t* codes;      // [kept] a byte each; 8-bit ones as two's complement
  const std::uint8_t* positions;  // [kept] 0 … 3 within their four columns; null if dense
  const std::uint16_t* scales;    // [groups] float16
  const std::uint16_t* minimums;  // [groups] float16; null without
};

/// Takes the rows of a source apart.
class RowReader {
 public:
  explicit RowReader(const TensorSource& source) : source_(source) {
    cols_ = source.shape[1];
    kept_ = source.storage == Storage::kGroups ? cols_ / 4 * kept_of_four(source.format.pattern) : cols_;
    groups_ = tile::groups(format(), cols_);
    codes_.resize(kept_);
    positions_.resize(kept_);
    scales_.resize(groups_);
    minimums_.resize(groups_);
  }

  WeightFormat format() const {
    if (source_.storage == Storage::kGgufQ4_1) return {Codes::kInt4Min, Pattern::kDense, kGgufGroup};
    if (source_.storage == Storage::kGgufQ8_0) return {Codes::kInt8, Pattern::kDense, kGgufGroup};
    return source_.format;
  }
  std::size_t kept() const { return kept_; }
  std::size_t groups() const { return groups_; }

  RowCodes read(std::size_t r) {
    switch (source_.storage) {
      case Storage::kGgufQ4_1:
        read_q4_1(source_.data.data() + r * groups_ * kQ4_1Bytes);
        break;
      case Storage::kGgufQ8_0:
        read_q8_0(source_.data.data() + r * groups_ * kQ8_0Bytes);
        break;
      default:
        read_groups(r);
    }
    return {codes_.data(), positions_.data(), scales_.data(), minimums_.data()};
  }

 private:
  void read_q4_1(const std::uint8_t* from) {
    for (std::size_t g = 0; g < groups_; ++g, from += kQ4_1Bytes) {
      std::memcpy(&scales_[g], from, 2);
      std::memcpy(&minimums_[g], from + 2, 2);
      for (std::size_t i = 0; i < 16; ++i) {
        codes_[g * kGgufGroup + i] = from[4 + i] & 15;
        codes_[g * kGgufGroup + 16 + i] = from[4 + i] >> 4;
      }
    }
  }

  void read_q8_0(const std::uint8_t* from) {
    for (std::size_t g = 0; g < groups_; ++g, from += kQ8_0Bytes) {
      std::memcpy(&scales_[g], from, 2);
      std::memcpy(&codes_[g * kGgufGroup], from + 2, kGgufGroup);
    }
  }

  void read_groups(std::size_t r) {
    if (source_.format.codes == Codes::kInt8) {
      std::memcpy(codes_.data(), source_.data.data() + r * kept_, kept_);
    } else {
      const std::uint8_t* from = source_.data.data() + r * kept_ / 2;
      for (std::size_t k = 0; k < kept_; ++k) codes_[k] = k % 2 ? from[k / 2] >> 4 : from[k / 2] & 15;
    }
    std::memcpy(scales_.data(), source_.scales.data() + r * groups_ * 2, groups_ * 2);
    if (!source_.minimums.empty()) {
      std::memcpy(minimums_.data(), source_.minimums.data() + r * groups_ * 2, groups_ * 2);
    }
    if (!source_.positions.empty()) {
      const std::uint8_t* from = source_.positions.data() + r * kept_ / 4;
      for (std::size_t k = 0; k < kept_; ++k) positions_[k] = from[k / 4] >> 2 * (k % 4) & 3;
    }
  }

  const TensorSource& source_;
  std::size_t cols_, kept_, groups_;
  std::vector<std::uint8_t> codes_, positions_;
  std::vector<std::uint16_t> scales_, minimums_;
};

void pack_row(const MatrixView& view, std::size_t r, const RowCodes& row, std::size_t kept,
              std::size_t groups, std::uint8_t* packed) {
  const WeightFormat& format = view.format;
  for (std::size_t g = 0; g < groups; ++g) {
    std::uint8_t* at = packed + tile::scale_at(format, view.cols, r, g);
    std::memcpy(at, &row.scales[g], 2);
    if (format.codes == Codes::kInt4Min) std::memcpy(at + tile::kScaleBytes, &row.minimums[g], 2);
  }
  const std::size_t lane = r % kTileRows;
  const std::size_t per_block = kBlock / 4 * kept_of_four(format.pattern);
  for (std::size_t first = 0; first < kept; first += per_block) {
    std::uint8_t* block = packed + tile::block_at(format, view.cols, r, first / per_block);
    const std::size_t count = std::min(per_block, kept - first);
    for (std::size_t k = 0; k < count; ++k) {
      const std::uint8_t code = row.codes[first + k];
      if (format.pattern != Pattern::kDense) {
        sparse::put(format.pattern, block, lane, k, code, row.positions[first + k]);
      } else if (format.codes == Codes::kInt8) {
        int8::put(block, lane, k, code);
      } else {
        int4::put(block, lane, k, code);
      }
    }
  }
}

}  // namespace

void check_tensor(const std::string& name, const TensorSource& source,
                  const std::vector<std::size_t>& shape) {
  if (source.shape != shape) {
    throw ModelError(message(name, ": shape ", shape_text(source.shape), ", expected ", shape_text(shape)));
  }
  const std::size_t weights = weights_of(name, shape);
  if (source.storage == Storage::kFloat32)
    return expect_bytes(name, "", source.data.size(), weights * sizeof(float));
  const std::size_t multiple = source.storage == Storage::kGroups ? 16 : kGgufGroup;
  if (shape.size() != 2 || shape.back() % multiple != 0) {
    throw ModelError(message(name, ": shape ", shape_text(shape),
                             ", expected two dimensions and a multiple of ", multiple,
                             " columns for quantized weights"));
  }
  if (source.storage == Storage::kGroups) return check_groups(name, source);
  const std::size_t bytes = source.storage == Storage::kGgufQ4_1 ? kQ4_1Bytes : kQ8_0Bytes;
  expect_bytes(name, "", source.data.size(), weights / kGgufGroup * bytes);
}

Matrix::Matrix(const std::string& name, const TensorSource& source, bool dequantize, Arena& arena) {
  if (source.shape.size() != 2) {
    throw ModelError(message(name, ": shape ", shape_text(source.shape), ", expected two dimensions"));
  }
  check_tensor(name, source, source.shape);
  const std::size_t rows = source.shape[0], cols = source.shape[1];
  if (source.storage == Storage::kFloat32) {
    std::uint8_t* data = arena.allocate(float32::packed_bytes(rows, cols));
    float32::pack(source.data.data(), rows, cols, data);
    view_ = {{}, rows, cols, data, {}};
    return;
  }
  if (dequantize) {
    std::uint8_t* data = arena.allocate(float32::packed_bytes(rows, cols));
    Arena own;
    const Matrix packed(name, source, false, own);
    for (std::size_t r = 0; r < rows; ++r) {
      packed.unpack_row(r, reinterpret_cast<float*>(data) + r * float32::stride(cols));
    }
    view_ = {{}, rows, cols, data, {}};
    return;
  }
  RowReader reader(source);
  std::uint8_t* data = arena.allocate(tile::packed_bytes(reader.format(), rows, cols));
  view_ = {reader.format(), rows, cols, data, source.table};
  for (std::size_t r = 0; r < rows; ++r) {
    pack_row(view_, r, reader.read(r), reader.kept(), reader.groups(), data);
  }
}

std::size_t Matrix::bytes() const {
  return is_quantized() ? tile::packed_bytes(view_.format, view_.rows, view_.cols)
                        : float32::packed_bytes(view_.rows, view_.cols);
}

void Matrix::unpack_row(std::size_t r, float* out) const {
  const WeightFormat& format = view_.format;
  const std::size_t cols = view_.cols;
  if (!format.is_quantized()) return float32::unpack_row(view_.data, cols, r, out);
  const std::size_t lane = r % kTileRows;
  const auto half = [&](std::size_t at) {
    std::uint16_t bits;
    std::memcpy(&bits, view_.data + at, 2);
    return half_to_float(bits);
  };
  const auto value = [&](int code) {
    if (format.codes == Codes::kInt4) return code - 8;
    if (format.codes == Codes::kInt4Table) return int{view_.table[static_cast<std::size_t>(code)]};
    return code;
  };
  if (format.pattern != Pattern::kDense) std::fill_n(out, cols, 0.0f);
  for (std::size_t first = 0; first < cols; first += kBlock) {
    const std::uint8_t* block = view_.data + tile::block_at(format, cols, r, first / kBlock);
    const std::size_t count = std::min(kBlock, cols - first);
    float scale[2], min[2];
    for (std::size_t h = 0; h < ceil_div(count, 16); ++h) {
      const std::size_t at = tile::scale_at(format, cols, r, (first + 16 * h) / format.group);
      scale[h] = half(at);
      min[h] = format.codes == Codes::kInt4Min ? half(at + tile::kScaleBytes) : 0.0f;
    }
    if (format.pattern == Pattern::kDense) {
      for (std::size_t c = 0; c < count; ++c) {
        const int code = format.codes == Codes::kInt8 ? int8::get(block, lane, c) : int4::get(block, lane, c);
        // Product and sum are rounded separately, as gguf-py does.
        const float product = static_cast<float>(value(code)) * scale[c / 16];
        out[first + c] = format.codes == Codes::kInt4Min ? product + min[c / 16] : product;
      }
      continue;
    }
    for (std::size_t k = 0; k < sparse::kept(format.pattern); ++k) {
      const std::size_t c = sparse::column(format.pattern, block, lane, k);
      if (c >= count) break;
      out[first + c] =
          static_cast<float>(value(sparse::code(format.pattern, block, lane, k))) * scale[c / 16];
    }
  }
}

}  // namespace bidtrie
