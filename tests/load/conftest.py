import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop
from load.scripted_server import ScriptedServer


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that `bidtrie.load.run` makes."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running
