"""The CUDA kernels for PyTorch tensors: 4-bit and sparse linears, tree attention, the candidate head.

Built with `BIDTRIE_CUDA=1 pip install .` where nvcc is; docs/gpu.md says what they do and how fast. Importing this
package needs neither torch nor a GPU, using it needs both.
"""
