"""Downloading one file of known size and hash: resumable, and never more than its size."""

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bidtrie.errors import ModelError
from bidtrie.models.verify import sha256_of

_CHUNK = 1 << 18
_TIMEOUT_S = 60
_ATTEMPTS = 4

#: Called with bytes done so far.
Advance = Callable[[int], None]


class Unreachable(ModelError):
    """The server could not be reached, or would not serve the file to us."""


def download(
    opener: urllib.request.OpenerDirector, address: str, part: Path, size: int, sha256: str, advance: Advance
) -> None:
    """Fetch `address` into `part`, going on from what `part` holds already.

    A connection that breaks is resumed until several attempts in a row bring nothing: then Unreachable is raised.
    Raises ModelError, with `part` deleted, if the bytes are not those of `sha256`.
    """
    failures = 0
    while (have := part.stat().st_size if part.exists() else 0) < size:
        try:
            _fetch_rest(opener, address, part, have, size, advance)
            problem = "the connection was closed"
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:
                # What is there cannot be a part of this file.
                part.unlink()
                problem = "the server refused the range"
            else:
                raise Unreachable(
                    f"{_shown(address)}: the server answers {error.code} {error.reason}"
                ) from None
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", None) or error) or type(error).__name__
        now = part.stat().st_size if part.exists() else 0
        failures = 0 if now > have else failures + 1
        if failures == _ATTEMPTS:
            raise Unreachable(
                f"{_shown(address)}: {problem} ({now} of {size} bytes so far are kept for the next try)"
            )
    if part.stat().st_size > size or sha256_of(part) != sha256:
        part.unlink()
        raise ModelError(
            f"{_shown(address)}: the bytes do not have the SHA-256 {sha256}; the download was deleted. "
            "Somebody or something on the way changed the file"
        )


def _fetch_rest(
    opener: urllib.request.OpenerDirector, address: str, part: Path, have: int, size: int, advance: Advance
) -> None:
    """One request, for the bytes from `have` on; a server that ignores ranges makes it start again."""
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        resumed = response.status == 206 and (response.headers.get("Content-Range") or "").startswith(
            f"bytes {have}-"
        )
        if have and not resumed:
            have = 0
        with part.open("ab" if have else "wb") as file:
            advance(have)
            while chunk := response.read(_CHUNK):
                # One byte too many shows that this is another file; more is not worth storing.
                chunk = chunk[: size + 1 - have]
                file.write(chunk)
                have += len(chunk)
                advance(min(have, size))
                if have > size:
                    return


def _shown(address: str) -> str:
    """The address without a login or query, which may be secret."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
