"""What a compiler tells of the CUDA kernels, without a GPU."""
