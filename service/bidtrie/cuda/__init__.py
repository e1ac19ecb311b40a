"""The CUDA kernels for PyTorch tensors: linears of 8 and 4 bits and sparse ones, tree attention, the candidate head.

Built with `BIDTRIE_CUDA=1 pip install .` where nvcc is; docs/gpu.md says what they do and how fast. Importing this
package needs neither torch nor a GPU, using it needs both.
"""
