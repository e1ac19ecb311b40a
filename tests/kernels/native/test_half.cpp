// Every float16 against its definition, sign * 2^(exponent - 15) * (1 + mantissa / 1024).

#include <cmath>

#include "bidtrie/half.h"
#include "check.h"

int main() {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double sign = bits >> 15 ? -1 : 1;
    const float value = bidtrie::half_to_float(static_cast<std::uint16_t>(bits));
    if (exponent == 31) {
      CHECK(mantissa ? std::isnan(value) : std::isinf(value) && std::signbit(value) == (sign < 0));
    } else {
      const double expected =
          exponent ? std::ldexp(1 + mantissa / 1024.0, exponent - 15) : std::ldexp(mantissa / 1024.0, -14);
      CHECK(static_cast<double>(value) == sign * expected);
      CHECK(std::signbit(value) == (sign < 0));
      CHECK(bidtrie::float_to_half(value) == bits);
    }
  }
}
