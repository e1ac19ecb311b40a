"""The engine on vLLM: its models, its weights on one or several GPUs or the CPU, our trees, formats and kernels."""
