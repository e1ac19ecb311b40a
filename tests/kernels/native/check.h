#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

/// End the test unless `condition` holds.
#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

/// End the test unless `call` throws `Error` with `part` in its message.
#define CHECK_THROWS(Error, part, call)                                                       \
  do {                                                                                        \
    bool thrown_ = false;                                                                     \
    try {                                                                                     \
      (void)(call);                                                                           \
    } catch (const Error& error_) {                                                           \
      thrown_ = std::string(error_.what()).find(part) != std::string::npos;                   \
      if (!thrown_) std::fprintf(stderr, "%s\n", error_.what());                              \
    }                                                                                         \
    if (!thrown_) {                                                                           \
      std::fprintf(stderr, "%s:%d: %s does not throw %s\n", __FILE__, __LINE__, #call, part); \
      std::exit(1);                                                                           \
    }                                                                                         \
  } while (false)

/// Whether two floats have the same bits.
inline bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}
