"""Fixtures that every part's tests share."""

from pathlib import Path

import pytest
from bidtrie.compress.tuned_model import fetch_tuned
from bidtrie.models.fetch import fetch
from hypothesis import settings

# The same examples on every run and machine, and no limits on time.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model's base, a .gguf file, fetched into the cache folder unless it is there."""
    return fetch("smollm2-135m")


@pytest.fixture(scope="session")
def tuned_path() -> Path:
    """The default model's folder, made in the cache folder unless it is there."""
    return fetch_tuned("bidtrie-135m", lambda stage, done, total: None)
