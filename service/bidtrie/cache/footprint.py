"""How many bytes a value takes in memory."""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass


def footprint(value: object) -> int:
    """Bytes of a value and of what it holds: tuples, lists, sets, mappings and dataclasses are walked.

    What the value holds twice counts once. What it shares with others (names that a catalog holds too) counts in
    full, so that a bound on footprints errs on the safe side.
    """
    seen: set[int] = set()
    waiting = [value]
    size = 0
    while waiting:
        item = waiting.pop()
        if item is None or isinstance(item, bool | type) or id(item) in seen:
            continue
        seen.add(id(item))
        size += sys.getsizeof(item)
        if isinstance(item, str | bytes | int | float):
            continue
        if isinstance(item, tuple | list | set | frozenset):
            waiting.extend(item)
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif is_dataclass(item):
            waiting.extend(getattr(item, field.name) for field in fields(item))
            if hasattr(item, "__dict__"):
                size += sys.getsizeof(item.__dict__)
    return size
