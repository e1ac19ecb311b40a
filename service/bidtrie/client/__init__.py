"""Clients of a running server: `Client`, and `AsyncClient` for asyncio.

    from bidtrie.client import Client

    with Client("localhost:50051") as client:
        answer = client.target(title="Best SUVs of the year", top_k=3, timeout_ms=200)
        for segment in answer.segments:
            print(segment.score, " > ".join(segment.path))

Answers are the protobuf responses; failures are `bidtrie.client.errors`.
"""

from bidtrie.client.aio import AsyncClient
from bidtrie.client.sync import Client

__all__ = ["AsyncClient", "Client"]
