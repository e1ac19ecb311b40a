#include "instruction_set.h"

#include "bidtrie/error.h"

namespace bidtrie {
namespace {

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> all;
#ifdef BIDTRIE_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    all.push_back(&avx512_kernels());
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    all.push_back(&avx2_kernels());
  }
#endif
  all.push_back(&portable_kernels());
  return all;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable()) names.emplace_back(kernels->name);
  return names;
}

const Kernels& kernels_for(std::string_view name) {
  std::string known;
  for (const Kernels* kernels : usable()) {
    if (name.empty() || name == kernels->name) return *kernels;
    known += known.empty() ? kernels->name : std::string(" or ") + kernels->name;
  }
  throw EngineError(message("instruction set \"", name, "\": expected ", known, " on this CPU"));
}

}  // namespace bidtrie
