"""What a cache found."""

from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Hit(Generic[V]):
    """A cached value, how many seconds ago it was computed, and whether it should be computed anew."""

    value: V
    age_s: float
    stale: bool
