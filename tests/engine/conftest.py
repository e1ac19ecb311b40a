import pytest

pytest.register_assert_rewrite("engine.twin", "engine.conformance")
