"""Cache keys: a digest of everything that changes an answer."""

import struct
from hashlib import blake2b

_FLOAT = struct.Struct(">d")

#: What a key may be made of; tuples may nest.
Part = str | int | float | bool | None | tuple["Part", ...]


def cache_key(**parts: Part) -> str:
    """32 hexadecimal digits, the same in every process: BLAKE2b over an unambiguous encoding of the named parts.

    Parts differ when their types do (1, 1.0, True and "1" are four keys); the order of the names does not matter. A
    member of an enumeration counts as its value. Nothing personal may be a part: no user or device id, no address, no
    exact location, no URL with its query. A digest is no protection, since few inputs can be tried one by one.
    Raises TypeError for any other type.
    """
    encoded: list[bytes] = []
    for name in sorted(parts):
        _append_text(encoded, name)
        _append(encoded, parts[name])
    return blake2b(b"".join(encoded), digest_size=16).hexdigest()


def _append(encoded: list[bytes], part: Part) -> None:
    """Every encoding begins with its type's letter and says where it ends, so that no two lists of parts agree."""
    # bool is an int and an enumeration's member may be a str: the order of the questions matters.
    if isinstance(part, str):
        _append_text(encoded, part)
    elif part is None:
        encoded.append(b"n")
    elif isinstance(part, bool):
        encoded.append(b"b1" if part else b"b0")
    elif isinstance(part, int):
        encoded.append(b"i%d;" % part)
    elif isinstance(part, float):
        encoded.append(b"f" + _FLOAT.pack(part))
    elif isinstance(part, tuple):
        if len(part) > 1 and all(isinstance(item, str) for item in part):
            _append_texts(encoded, part)
        else:
            encoded.append(b"t%d:" % len(part))
            for item in part:
                _append(encoded, item)
    else:
        raise TypeError(f"a cache key cannot hold a {type(part).__name__}")


def _append_text(encoded: list[bytes], text: str) -> None:
    # Lone surrogates are no valid text, but no reason to fail either.
    content = text.encode("utf-8", "surrogatepass")
    encoded.append(b"s%d:" % len(content))
    encoded.append(content)


def _append_texts(encoded: list[bytes], texts: tuple[Part, ...]) -> None:
    """Many strings at once: a shortlist may hold thousands of ids, and one by one they would take milliseconds."""
    joined = "".join(texts)  # type: ignore[arg-type]
    encoded.append(b"T%d:" % len(texts))
    encoded.append(",".join(map(str, map(len, texts))).encode())  # type: ignore[arg-type]
    encoded.append(b";")
    _append_text(encoded, joined)
