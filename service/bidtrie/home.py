"""Where fetched models and built catalogs are kept."""

import os
from pathlib import Path


def home() -> Path:
    """The cache folder: `BIDTRIE_HOME`, else `$XDG_CACHE_HOME/bidtrie`, else `~/.cache/bidtrie`.

    A relative `XDG_CACHE_HOME` counts as unset, as the XDG base directory specification asks.
    """
    if own := os.environ.get("BIDTRIE_HOME"):
        return Path(own).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "bidtrie"


def models_dir() -> Path:
    """The folder of fetched models, one folder each."""
    return home() / "models"


def catalogs_dir() -> Path:
    """The folder of built catalogs, one folder each."""
    return home() / "catalogs"
