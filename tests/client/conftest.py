from collections.abc import Iterator

import pytest
from server.process import ServerProcess, fake_server


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A running fake server."""
    with fake_server() as running:
        running.event("ready")
        yield running
