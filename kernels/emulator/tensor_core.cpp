#include "emulator/tensor_core.h"

#include <array>
#include <bit>
#include <string>

#include "bidtrie/half.h"
#include "emulator/machine.h"

namespace bidtrie::emulator {

namespace {

struct Dense {
  Decode decode;
  float* c;
  const std::uint32_t* a;
  std::uint32_t b[2];
};

struct Sparse {
  Decode decode;
  float* c;
  const std::uint32_t* a;
  const std::uint32_t* b;
  std::uint32_t positions;
};

using Payloads = std::array<void*, kLanes>;

/// Matrices of a warp, row by row.
template <int kInner>
struct Operands {
  double a[16][kInner] = {}, b[kInner][8];
};

double half_of(Decode decode, std::uint32_t word, unsigned half) {
  return static_cast<double>(decode(static_cast<std::uint16_t>(word >> 16 * half)));
}

/// C += A B, each lane's part of C where its payload says.
template <class Payload, int kInner>
void multiply(const Operands<kInner>& m, const Payloads& payloads) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    float* const c = static_cast<Payload*>(payloads[lane])->c;
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      double sum = static_cast<double>(c[i]);
      for (int k = 0; k < kInner; ++k) sum += m.a[row][k] * m.b[k][column];
      c[i] = static_cast<float>(sum);
    }
  }
}

void dense(const Payloads& payloads) {
  Operands<16> m;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const Dense& mine = *static_cast<Dense*>(payloads[lane]);
    const unsigned g = lane / 4, q = lane % 4;
    for (unsigned half = 0; half < 2; ++half) {
      for (unsigned i = 0; i < 4; ++i) {
        m.a[g + 8 * (i % 2)][8 * (i / 2) + 2 * q + half] = half_of(mine.decode, mine.a[i], half);
      }
      for (unsigned i = 0; i < 2; ++i) m.b[8 * i + 2 * q + half][g] = half_of(mine.decode, mine.b[i], half);
    }
  }
  multiply<Dense>(m, payloads);
}

void sparse(const Payloads& payloads) {
  Operands<32> m;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const Sparse& mine = *static_cast<Sparse*>(payloads[lane]);
    const unsigned g = lane / 4, q = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      // Four `four` of row g + 8 (i % 2): its positions are with the row's lane 0 (fours 0 to 3) or 1.
      const unsigned row = i % 2, four = q + 4 * (i / 2), keeper = 4 * g + four / 4;
      const std::uint32_t positions = static_cast<Sparse*>(payloads[keeper])->positions;
      const std::uint32_t field = positions >> (16 * row + 4 * (four % 4)) & 15;
      const std::uint32_t first = field & 3, second = field >> 2;
      if (first >= second) {
        Machine::get().fail_lane(Kind::kPositions, keeper,
                                 "positions " + std::to_string(first) + " and " + std::to_string(second) +
                                     " of four " + std::to_string(four) + " of row " +
                                     std::to_string(g + 8 * row) + " do not ascend");
      }
      m.a[g + 8 * row][4 * four + first] = half_of(mine.decode, mine.a[i], 0);
      m.a[g + 8 * row][4 * four + second] = half_of(mine.decode, mine.a[i], 1);
      for (unsigned half = 0; half < 2; ++half) {
        m.b[8 * i + 2 * q + half][g] = half_of(mine.decode, mine.b[i], half);
      }
    }
  }
  multiply<Sparse>(m, payloads);
}

}  // namespace

float decode_float16(std::uint16_t bits) {
  return half_to_float(bits);
}

float decode_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

void multiply_dense(Decode decode, float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                    std::uint32_t b1, const Site& site) {
  Dense mine{decode, c, a, {b0, b1}};
  Machine::get().collect(dense, &mine, site);
}

void multiply_sparse(Decode decode, float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[4],
                     std::uint32_t positions, const Site& site) {
  Sparse mine{decode, c, a, b, positions};
  Machine::get().collect(sparse, &mine, site);
}

}  // namespace bidtrie::emulator
