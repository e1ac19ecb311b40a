"""What can be told before a server listens, since it takes no loading: is everything there that the settings name?"""

from pathlib import Path

from bidtrie.cache.redis_address import RedisAddress
from bidtrie.drafts.approved import read_approved
from bidtrie.models.load import load_checkpoint
from bidtrie.models.names import model_path
from bidtrie.serving.loaded_model import check_engine
from bidtrie.serving.runtime import catalog_names
from bidtrie.settings import Settings
from bidtrie.trie.store import catalog_folder, describe_catalog


def check_start(settings: Settings) -> None:
    """Raise ModelError, CatalogError or InvalidInput where what the settings name cannot be right.

    The contents of files are read when they are loaded, while the server refuses calls already.
    """
    check_engine(settings)
    for name in (settings.model, *settings.levels):
        _check_model(name)
    for name in catalog_names(settings):
        describe_catalog(catalog_folder(name))
    if settings.approved_creatives is not None:
        read_approved(settings.approved_creatives)
    if settings.cache_redis_url is not None:
        RedisAddress.parse(settings.cache_redis_url)


def _check_model(name: str) -> None:
    try:
        there = model_path(name) is not None or Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        there = False
    if not there:
        # Fails at once, with the words that go with what is missing.
        load_checkpoint(name)
