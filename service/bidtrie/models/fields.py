"""Typed access to untrusted key-value metadata, with errors that name the file and the key."""

import math
from collections.abc import Mapping
from typing import Any

from bidtrie.errors import ModelError


def printable(name: str, length: int = 80) -> str:
    """An untrusted name or text, fit for a one-line message."""
    short = name if len(name) <= length else f"{name[: length - 3]}..."
    return short if short.isprintable() and short else repr(short)


class Fields:
    """Metadata of `source` (a file's name); a key that is absent or null gives `default`, or an error without one."""

    def __init__(self, source: str, values: Mapping[str, Any]) -> None:
        self.source = source
        self.values = values

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def expect_only(self, *keys: str) -> None:
        """Raise ModelError for a key that is not one of `keys`: what it asks for would be left out silently."""
        for key in self.values:
            if key not in keys:
                raise ModelError(
                    f"{self.source}: the key {printable(key)} is unknown, expected {', '.join(keys)}"
                )

    def _wrong(self, key: str, expected: str) -> ModelError:
        shown = repr(self.values.get(key))
        return ModelError(f"{self.source}: {printable(key)} is {shown[:60]}, expected {expected}")

    def _get(self, key: str, default: Any, expected: str) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise ModelError(f"{self.source}: {printable(key)} is missing, expected {expected}")
            return default
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default, "an integer")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(key, "a finite number")
        return number

    def positive(self, key: str, default: float | None = None) -> float:
        number = self.number(key, default)
        if number <= 0:
            raise self._wrong(key, "a positive number")
        return number

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._get(key, default, "true or false")
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default, "a string")
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        value = self._get(key, default, "a list of strings")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return value

    def integers(self, key: str, default: list[int] | None = None) -> list[int]:
        """A list of integers; a single integer counts as a list of one."""
        value = self._get(key, default, "a list of integers")
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise self._wrong(key, "a list of integers")
        return items

    def numbers(self, key: str) -> list[float]:
        value = self._get(key, None, "a list of numbers")
        if not isinstance(value, list) or not all(
            type(item) in (int, float) and math.isfinite(item) for item in value
        ):
            raise self._wrong(key, "a list of finite numbers")
        return [float(item) for item in value]

    def section(self, key: str) -> "Fields":
        """A nested object; empty when it is absent."""
        value = self._get(key, {}, "an object")
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Fields(f"{self.source}: {printable(key)}", value)
