"""What is said below the table of an answer: whether it is whole, and whether it is new."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bidtrie.v1.creative_pb2 import GenerateResponse
    from bidtrie.v1.targeting_pb2 import TargetResponse


def answer_notes(response: "TargetResponse | GenerateResponse", *, partial: str, fallback: str) -> list[str]:
    """A line each for what is not as it was asked for; `partial` and `fallback` say what these mean here."""
    notes = []
    if response.partial:
        notes.append(f"partial: {partial}")
    if response.fallback:
        notes.append(f"fallback: {fallback}")
    if response.HasField("cache_age_ms"):
        notes.append(f"from the cache, {response.cache_age_ms / 1000:.1f} s old")
    return notes
