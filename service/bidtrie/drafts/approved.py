"""Approved creatives: texts that were found good, from a file, as phrases that new texts are likely to share.

The file has one JSON object a line: `{"text": "…", "company": "…", "industry": "…"}`. With a company a text counts for
that company's requests only; without one it counts for all, and more for those of its industry, if it names one. Case
and spaces of the names do not matter. Empty lines are allowed.
"""

import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bidtrie.drafts.phrase_trie import PhraseTrie, start
from bidtrie.drafts.recent import advertiser_key
from bidtrie.drafts.request_text import Encode
from bidtrie.errors import InvalidInput, Violation

logger = logging.getLogger(__name__)

#: Largest file, most characters of a text or name, and most wrong lines that are told.
MAX_FILE_BYTES, MAX_CHARACTERS, MAX_TOLD = 16 << 20, 2000, 10
_KEYS = frozenset({"text", "company", "industry"})
_POLL_SECONDS = 2.0

#: Called with the number of texts that were read; None: the file was wrong.
OnRead = Callable[[int | None], None]
#: Texts that count together: "company", "industry" or "all", and the name.
Group = tuple[str, str]
_ALL: Group = ("all", "")


@dataclass(frozen=True, slots=True)
class ApprovedText:
    """A text, and whom it is for."""

    text: str
    company: str = ""
    industry: str = ""

    @property
    def groups(self) -> list[Group]:
        """Where it counts."""
        company, industry = advertiser_key(self.company), advertiser_key(self.industry)
        if company:
            return [("company", company)]
        return [("industry", industry), _ALL] if industry else [_ALL]


def parse_approved(data: bytes, name: str) -> list[ApprovedText]:
    """The texts of a file's bytes. Raises InvalidInput that names wrong lines as `name:line`, the first ten of them."""
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput.of(name, f"has over {MAX_FILE_BYTES >> 20} MiB")
    texts: list[ApprovedText] = []
    wrong: list[Violation] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            texts.append(_parse_line(line))
        except ValueError as error:
            wrong.append(Violation(f"{name}:{number}", str(error)))
            if len(wrong) == MAX_TOLD:
                break
    if wrong:
        raise InvalidInput(wrong)
    return texts


def _parse_line(line: bytes) -> ApprovedText:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except (
        ValueError,
        RecursionError,
    ):  # JSONDecodeError is a ValueError, and so is a number of too many digits
        raise ValueError('is not JSON, expected an object such as {"text": "..."}') from None
    if not isinstance(value, dict):
        raise ValueError('expected an object such as {"text": "..."}')
    unknown = sorted(set(value) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0][:40]!r}, expected text, company, industry")
    fields: dict[str, str] = {}
    for key, text in value.items():
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise ValueError(f"{key}: expected a string of at most {MAX_CHARACTERS} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{key}: holds a lone surrogate, expected valid Unicode") from None
        fields[key] = " ".join(text.split())
    if not fields.get("text"):
        raise ValueError("text: is missing or empty")
    return ApprovedText(**fields)


def read_approved(file: Path) -> list[ApprovedText]:
    """The texts of a file. Raises InvalidInput."""
    try:
        # Opened without waiting, or a named pipe would hold us up for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidInput.of(str(file), "is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidInput.of(str(file), f"cannot be read: {error.strerror}") from error
    return parse_approved(data, str(file))


def group_phrases(texts: Sequence[ApprovedText], encode: Encode, vocabulary: int) -> dict[Group, PhraseTrie]:
    """A trie for each group of texts."""
    groups: dict[Group, list[tuple[list[int], float]]] = {}
    begin = start(vocabulary)
    for each in texts:
        tokens = [begin, *encode(each.text)]
        for group in each.groups:
            groups.setdefault(group, []).append((tokens, 1.0))
    return {group: PhraseTrie(members, vocabulary) for group, members in groups.items()}


class ApprovedCreatives:
    """The phrases of a file, read anew when it changes.

    `refresh` looks at the file, and `watch` calls it on a thread of its own; `tries` may be called from any thread.
    """

    def __init__(
        self, file: Path, encode: Encode, vocabulary: int, on_read: OnRead = lambda texts: None
    ) -> None:
        """`on_read` is told of every time that the file is read.

        Raises InvalidInput when the file is wrong: later, what it held before stays.
        """
        self._file = file
        self._encode = encode
        self._vocabulary = vocabulary
        self._seen = _version(file)
        texts = read_approved(file)
        self._groups: Mapping[Group, PhraseTrie] = group_phrases(texts, encode, vocabulary)
        self._on_read = on_read
        self._note(len(texts))
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def tries(self, company: str, industry: str) -> list[tuple[str, PhraseTrie]]:
        """The phrases that count for a request, the ones meant for fewest first, by the kind of their group."""
        groups = self._groups
        wanted = (("company", advertiser_key(company)), ("industry", advertiser_key(industry)), _ALL)
        return [(group[0], groups[group]) for group in wanted if group in groups]

    def refresh(self) -> bool:
        """Read the file if it has changed; whether new texts count now. A wrong one is told in the log, once."""
        version = _version(self._file)
        if version == self._seen:
            return False
        self._seen = version
        try:
            texts = read_approved(self._file)
            self._groups = group_phrases(texts, self._encode, self._vocabulary)
        except InvalidInput as error:
            logger.warning("approved creatives not taken, the old ones stay", extra={"why": str(error)})
            self._on_read(None)
            return False
        self._note(len(texts))
        return True

    def _note(self, texts: int) -> None:
        logger.info("approved creatives read", extra={"texts": texts})
        self._on_read(texts)

    def watch(self, seconds: float = _POLL_SECONDS) -> None:
        """Look every so many seconds, until `close`."""

        def loop() -> None:
            while not self._closing.wait(seconds):
                try:
                    self.refresh()
                except Exception:
                    logger.exception("looking at the approved creatives failed")

        self._watcher = threading.Thread(target=loop, name="bidtrie-approved", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()


def _version(file: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None: it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
