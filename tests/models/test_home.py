"""Where the cache folder is."""

from pathlib import Path

import pytest
from bidtrie.home import catalogs_dir, home, models_dir


def test_order_of_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("BIDTRIE_HOME", "/own")
    assert home() == Path("/own")
    assert models_dir() == Path("/own/models")
    assert catalogs_dir() == Path("/own/catalogs")
    monkeypatch.setenv("BIDTRIE_HOME", "~/own")
    assert home() == Path("/home/somebody/own")
    monkeypatch.setenv("BIDTRIE_HOME", "")
    assert home() == Path("/caches/bidtrie")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == Path("/home/somebody/.cache/bidtrie")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path("/home/somebody/.cache/bidtrie")
