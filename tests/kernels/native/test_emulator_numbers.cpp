// The device's arithmetic in the emulator against its definitions: 16-bit floats, bytes, and tensor cores
// against products of whole matrices in float64.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "device.cuh"

namespace {

using bidtrie::emulator::Buffer;
using namespace bidtrie::cuda;

// -- 16-bit floats

template <class T>
constexpr int kMantissa = std::is_same_v<T, Float16> ? 10 : 7;
template <class T>
constexpr int kBias = std::is_same_v<T, Float16> ? 15 : 127;

/// What the bits mean, by definition; of infinity, the number that would come next.
template <class T>
double magnitude(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> kMantissa<T>);
  const double mantissa = static_cast<double>(bits & ((1u << kMantissa<T>)-1)) / (1 << kMantissa<T>);
  return exponent ? std::ldexp(1 + mantissa, exponent - kBias<T>) : std::ldexp(mantissa, 1 - kBias<T>);
}

template <class T>
constexpr std::uint32_t kInfinity = std::is_same_v<T, Float16> ? 0x7c00 : 0x7f80;

/// The nearest, by bisection over the magnitudes, which ascend with the bits; of two equally near the even
/// one.
template <class T>
std::uint16_t nearest(double x) {
  std::uint32_t low = 0, high = kInfinity<T>;  // low <= |x| < high, or |x| >= high
  const double size = std::fabs(x);
  while (high - low > 1) {
    const std::uint32_t middle = (low + high) / 2;
    (magnitude<T>(middle) <= size ? low : high) = middle;
  }
  const double below = size - magnitude<T>(low), above = magnitude<T>(high) - size;
  const bool up = above < below || (above == below && high % 2 == 0);
  return static_cast<std::uint16_t>((up ? high : low) | (std::signbit(x) ? 0x8000u : 0u));
}

template <class T>
void sixteen_bits() {
  for (std::uint32_t bits = 0; bits < 1u << 16; ++bits) {
    const T x{static_cast<std::uint16_t>(bits)};
    const std::uint32_t size = bits & 0x7fff;
    const float value = to_float(x);
    CHECK(std::signbit(value) == (bits >> 15 != 0));
    if (size > kInfinity<T>) {
      CHECK(std::isnan(value));
      const std::uint16_t back = from_float<T>(value).bits;
      CHECK((back & 0x7fffu) > kInfinity<T>);
    } else {
      CHECK(size == kInfinity<T> ? std::isinf(value)
                                 : std::fabs(static_cast<double>(value)) == magnitude<T>(size));
      CHECK(from_float<T>(value).bits == bits);
    }
  }
  std::mt19937 random(11);
  int ties = 0;
  for (int i = 0; i < 300000; ++i) {
    auto bits = static_cast<std::uint32_t>(random());
    if (i % 3 == 1)
      bits = (bits & 0x80007fffu) | (113u - 24u + bits % 60) << 23;  // float16's range and around
    if (i % 3 == 2) bits &= ~((1u << (22 - kMantissa<T>)) - 1);      // often half-way
    const auto value = std::bit_cast<float>(bits);
    if (!std::isfinite(value)) continue;
    CHECK(from_float<T>(value).bits == nearest<T>(static_cast<double>(value)));
    ties += (bits & ((1u << (23 - kMantissa<T>)) - 1)) == 1u << (22 - kMantissa<T>);
  }
  CHECK(ties > 10000);
  CHECK(pack2<T>(1.5f, -2.0f) ==
        (static_cast<std::uint32_t>(from_float<T>(-2.0f).bits) << 16 | from_float<T>(1.5f).bits));
  CHECK(from_float<T>(infinity()).bits == kInfinity<T>);
}

template <class T>
void differences() {
  std::mt19937 random(12);
  const auto value = [](std::uint32_t word, int half) {
    return static_cast<double>(to_float(T{static_cast<std::uint16_t>(word >> 16 * half)}));
  };
  int finite = 0;
  for (int i = 0; i < 300000; ++i) {
    const auto a = static_cast<std::uint32_t>(random());
    // Near a, so that digits cancel, or anywhere.
    const std::uint32_t b =
        i % 2 ? a ^ static_cast<std::uint32_t>(random() & 0x003f003f) : static_cast<std::uint32_t>(random());
    const std::uint32_t c = subtract2<T>(a, b);
    for (int half = 0; half < 2; ++half) {
      const double x = value(a, half), y = value(b, half);
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      // The difference of two bfloat16 may need more than float64's bits, but then the smaller one is far
      // below half a place of the larger one.
      ++finite;
      if (x == y) {
        CHECK((c >> 16 * half & 0x7fff) == 0);
      } else {
        CHECK((c >> 16 * half & 0xffff) == nearest<T>(x - y));
      }
    }
  }
  CHECK(finite > 500000);
}

void bits_and_bytes() {
  std::mt19937 random(13);
  for (int i = 0; i < 10000; ++i) {
    const auto a = static_cast<std::uint32_t>(random()), b = static_cast<std::uint32_t>(random()),
               selector = static_cast<std::uint32_t>(random());
    const std::uint32_t picked = pick_bytes(a, b, selector);
    for (std::uint32_t byte = 0; byte < 4; ++byte) {
      const std::uint32_t which = selector >> 4 * byte & 7;
      CHECK((picked >> 8 * byte & 0xff) == ((which < 4 ? a >> 8 * which : b >> 8 * (which - 4)) & 0xff));
    }
    CHECK((and_or<0x00ff00ffu, 0x43004300u>(a) == ((a & 0x00ff00ffu) | 0x43004300u)));
    CHECK((and_xor<0x00800080u, 0x43804380u>(a) == ((a ^ 0x43804380u) & 0x00800080u) + 0x43004300u));
  }
  CHECK(pick_bytes(0x33221100, 0x77665544, 0x5410) == 0x55441100);
  // 1.5 + 2 and -3 + 1.
  CHECK(add_bfloat16(0xc0403fc0, 0x3f804000) == 0xc0004060);
  CHECK(power_of_2(-infinity()) == 0 && power_of_2(3) == 8 && log_2(8) == 3);
  // One rounding: 1 + 2^-24 + 2^-24 is lost in steps.
  CHECK(multiply_add(1 + 0x1p-12f, 1 + 0x1p-12f, -1) == 0x1p-11f + 0x1p-24f);
}

// -- Tensor cores

/// Row-major numbers that T holds exactly.
template <class T>
std::vector<double> matrix(std::size_t size, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<double> out(size);
  for (double& x : out) x = static_cast<double>(to_float(from_float<T>(normal(random))));
  return out;
}

template <class T>
std::uint16_t bits_of(double x) {
  return from_float<T>(static_cast<float>(x)).bits;
}

template <class T>
std::uint32_t words_of(double low, double high) {
  return bits_of<T>(low) | static_cast<std::uint32_t>(bits_of<T>(high)) << 16;
}

constexpr unsigned kRows = 16, kColumns = 8;

template <class T>
__global__ void dense(const std::uint32_t* a, const std::uint32_t* b, float* c) {
  const unsigned lane = threadIdx.x;
  std::uint32_t mine[4];
  float sums[4];
  for (unsigned i = 0; i < 4; ++i) {
    mine[i] = load(a + 4 * lane + i);
    sums[i] = load_fresh(c + 4 * lane + i);
  }
  multiply_16x8x16<T>(sums, mine, load(b + 2 * lane), load(b + 2 * lane + 1));
  for (unsigned i = 0; i < 4; ++i) store(c + 4 * lane + i, sums[i]);
}

template <class T>
__global__ void sparse(const std::uint32_t* a, const std::uint32_t* b, const std::uint32_t* positions,
                       float* c) {
  const unsigned lane = threadIdx.x;
  std::uint32_t kept[4], other[4];
  float sums[4];
  for (unsigned i = 0; i < 4; ++i) {
    kept[i] = load(a + 4 * lane + i);
    other[i] = load(b + 4 * lane + i);
    sums[i] = load_fresh(c + 4 * lane + i);
  }
  multiply_sparse_16x8x32<T>(sums, kept, other, load(positions + lane));
  for (unsigned i = 0; i < 4; ++i) store(c + 4 * lane + i, sums[i]);
}

/// Where element i of lane's part of C is.
unsigned c_row(unsigned lane, unsigned i) {
  return lane / 4 + (i < 2 ? 0 : 8);
}
unsigned c_column(unsigned lane, unsigned i) {
  return lane % 4 * 2 + (i & 1);
}

/// Whether C + A B is what the lanes have, to half a unit in the last place of float32 and what float64
/// loses.
bool is_product(const std::vector<double>& a, const std::vector<double>& b, const std::vector<double>& c,
                unsigned inner, const std::vector<float>& lanes) {
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = c_row(lane, i), column = c_column(lane, i);
      double sum = 0, size = std::fabs(c[row * kColumns + column]);
      for (unsigned k = inner; k-- > 0;) {
        sum += a[row * inner + k] * b[k * kColumns + column];
        size += std::fabs(a[row * inner + k] * b[k * kColumns + column]);
      }
      sum += c[row * kColumns + column];
      const double bound = std::fabs(sum) * 0x1p-24 + size * inner * 0x1p-53;
      if (!(std::fabs(static_cast<double>(lanes[4 * lane + i]) - sum) <= bound)) return false;
    }
  }
  return true;
}

std::vector<float> c_fragment(const std::vector<double>& c) {
  std::vector<float> out;
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      out.push_back(static_cast<float>(c[c_row(lane, i) * kColumns + c_column(lane, i)]));
    }
  }
  return out;
}

template <class T>
void dense_products() {
  std::mt19937 random(14);
  for (int round = 0; round < 20; ++round) {
    const auto a = matrix<T>(kRows * 16, random), b = matrix<T>(16 * kColumns, random),
               c = matrix<T>(kRows * kColumns, random);
    std::vector<std::uint32_t> a_lanes, b_lanes;
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned g = lane / 4, q = lane % 4;
      for (const auto& [row, column] :
           {std::pair(g, 2 * q), {g + 8, 2 * q}, {g, 2 * q + 8}, {g + 8, 2 * q + 8}}) {
        a_lanes.push_back(words_of<T>(a[row * 16 + column], a[row * 16 + column + 1]));
      }
      for (const unsigned row : {2 * q, 2 * q + 8}) {
        b_lanes.push_back(words_of<T>(b[row * kColumns + g], b[(row + 1) * kColumns + g]));
      }
    }
    const auto run = [&] {
      Buffer<std::uint32_t> a_buffer(a_lanes), b_buffer(b_lanes);
      Buffer<float> c_buffer(c_fragment(c));
      BIDTRIE_LAUNCH(dense<T>, 1, 32, nullptr, a_buffer.get(), b_buffer.get(), c_buffer.get());
      return c_buffer.read();
    };
    const std::vector<float> right = run();
    CHECK(is_product(a, b, c, 16, right));
    // Controls: rows g and g + 8 the wrong way round; one element a place off.
    std::swap(a_lanes[4 * 9], a_lanes[4 * 9 + 1]);
    CHECK(!is_product(a, b, c, 16, run()));
    std::swap(a_lanes[4 * 9], a_lanes[4 * 9 + 1]);
    b_lanes[17] ^= 0x00040000;
    CHECK(!is_product(a, b, c, 16, run()));
  }
}

template <class T>
void sparse_products() {
  constexpr unsigned kPairs[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
  std::mt19937 random(15);
  for (int round = 0; round < 20; ++round) {
    const auto kept = matrix<T>(kRows * 16, random), b = matrix<T>(32 * kColumns, random),
               c = matrix<T>(kRows * kColumns, random);
    std::vector<double> a(kRows * 32);             // with its zeros
    std::vector<std::uint32_t> fields(kRows * 8);  // of each four
    for (unsigned row = 0; row < kRows; ++row) {
      for (unsigned four = 0; four < 8; ++four) {
        const unsigned* pair = kPairs[random() % 6];
        fields[row * 8 + four] = pair[0] | pair[1] << 2;
        for (unsigned i = 0; i < 2; ++i) a[row * 32 + 4 * four + pair[i]] = kept[row * 16 + 2 * four + i];
      }
    }
    std::vector<std::uint32_t> a_lanes, b_lanes, positions;
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned g = lane / 4, q = lane % 4;
      for (const auto& [row, four] : {std::pair(g, q), {g + 8, q}, {g, q + 4}, {g + 8, q + 4}}) {
        a_lanes.push_back(words_of<T>(kept[row * 16 + 2 * four], kept[row * 16 + 2 * four + 1]));
      }
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = 8 * i + 2 * q;
        b_lanes.push_back(words_of<T>(b[row * kColumns + g], b[(row + 1) * kColumns + g]));
      }
      std::uint32_t word = static_cast<std::uint32_t>(random());  // unread of lanes 2 and 3
      if (q < 2) {
        word = 0;
        for (unsigned four = 0; four < 4; ++four) {
          word |= fields[g * 8 + 4 * q + four] << 4 * four | fields[(g + 8) * 8 + 4 * q + four]
                                                                 << (16 + 4 * four);
        }
      }
      positions.push_back(word);
    }
    const auto run = [&] {
      Buffer<std::uint32_t> a_buffer(a_lanes), b_buffer(b_lanes), positions_buffer(positions);
      Buffer<float> c_buffer(c_fragment(c));
      BIDTRIE_LAUNCH(sparse<T>, 1, 32, nullptr, a_buffer.get(), b_buffer.get(), positions_buffer.get(),
                     c_buffer.get());
      return c_buffer.read();
    };
    CHECK(is_product(a, b, c, 32, run()));
    // Controls: another four's position; the two of a four the wrong way round.
    const std::uint32_t before = positions[5];
    positions[5] = (before & ~0xf0u) | ((before >> 4 & 15) == 0b0100 ? 0b1110u : 0b0100u) << 4;
    CHECK(!is_product(a, b, c, 32, run()));
    positions[5] = before;
    a_lanes[77] = a_lanes[77] << 16 | a_lanes[77] >> 16;
    CHECK(!is_product(a, b, c, 32, run()));
  }
}

}  // namespace

int main() {
  sixteen_bits<Float16>();
  sixteen_bits<Bfloat16>();
  differences<Float16>();
  differences<Bfloat16>();
  bits_and_bytes();
  dense_products<Float16>();
  dense_products<Bfloat16>();
  sparse_products<Float16>();
  sparse_products<Bfloat16>();
}
