"""Answers as JSON, for a cache that other processes share: what comes from there is checked."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bidtrie.cache.answer_cache import Codec
from bidtrie.requests import GenerateAnswer, TargetAnswer

A = TypeVar("A")


def _codec(kind: type[A]) -> Codec[A]:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def decode(data: bytes) -> A:
        try:
            answer: A = adapter.validate_json(data)
        except ValidationError as error:
            raise ValueError("not an answer") from error
        return answer

    return Codec(adapter.dump_json, decode)


TARGET_CODEC: Codec[TargetAnswer] = _codec(TargetAnswer)
GENERATE_CODEC: Codec[GenerateAnswer] = _codec(GenerateAnswer)
