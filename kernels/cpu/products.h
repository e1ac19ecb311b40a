#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels.h"
#include "matrix.h"
#include "thread_team.h"

namespace bidtrie {

/// out [nodes, rows] = x [nodes, cols] times the matrix, rows dealt out to the team. The same bits for any
/// team.
void linear(const Kernels& kernels, ThreadTeam& team, const Matrix& matrix, const float* x, std::size_t nodes,
            float* out);

/// out[i] = x[r] · w[ids[i]] for i in offsets[r] … offsets[r + 1]: the products that `linear` would give.
/// Throws EngineError for offsets or ids that do not fit.
void candidates(const Kernels& kernels, ThreadTeam& team, const Matrix& matrix, const float* x,
                std::size_t nodes, std::span<const std::int32_t> offsets, std::span<const std::int32_t> ids,
                float* out);

}  // namespace bidtrie
