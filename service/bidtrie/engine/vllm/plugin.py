"""vLLM's entry point `vllm.general_plugins`: makes any vLLM of this environment load bidtrie's artefacts."""


def register() -> None:
    """Register the quantization method "bidtrie"; may be called any number of times, in any process."""
    from bidtrie.engine.vllm import quantization  # noqa: F401  (importing registers)
