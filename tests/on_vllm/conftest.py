"""Tests that need vLLM: `make test-vllm` makes an environment for them and runs them there."""

from importlib.util import find_spec

import pytest

pytest.register_assert_rewrite("engine.twin", "engine.conformance")


def pytest_configure(config: pytest.Config) -> None:
    # What vLLM and its dependencies say of each other is not ours to mend.
    for line in ("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"):
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("vllm") is not None:
        return
    skip = pytest.mark.skip(reason="vllm is not installed here: `make test-vllm` runs these")
    for item in items:
        if "on_vllm" in item.path.parts and item.get_closest_marker("without_vllm") is None:
            item.add_marker(skip)
