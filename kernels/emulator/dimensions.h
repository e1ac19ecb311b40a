#pragma once

// The names that CUDA gives to a launch's shape, and the little of its runtime that launchers use.

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

struct dim3 {
  // NOLINTNEXTLINE: as in CUDA, a number is a shape.
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  unsigned x, y, z;
};

/// Of the thread that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0 };

/// The emulator throws from the launch instead.
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "no error";
}
