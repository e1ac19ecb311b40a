#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels.h"

namespace bidtrie {

/// Names of the instruction sets that this build has kernels for and this CPU can run, best first.
std::vector<std::string> instruction_sets();

/// The kernels of an instruction set; of the best one for an empty name. Throws EngineError for others.
const Kernels& kernels_for(std::string_view name);

}  // namespace bidtrie
