"""Where Redis is: a URL, checked before anything connects."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bidtrie.errors import InvalidInput

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

#: The setting that errors name.
FIELD = "cache_redis_url"
_EXPECTED = (
    "expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… (TLS, with ssl_… options behind a ?)"
    " or unix://[[USER]:PASSWORD@]/PATH[?db=DATABASE], with special characters of the password percent-encoded"
)
_PLAIN = {"host", "port", "db", "username", "password", "path", "connection_class"}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis server and how to log in there; only `label` (host and port, or path) may be shown."""

    label: str
    _options: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """From a URL. Raises InvalidInput, which never quotes the URL, since it may hold a password."""
        try:
            from redis.asyncio.connection import Connection, parse_url
            from redis.exceptions import RedisError
        except ImportError as error:
            raise InvalidInput.of(FIELD, 'needs the redis library: pip install "bidtrie[redis]"') from error
        try:
            parts = urlsplit(url)
            options: dict[str, Any] = {**parse_url(url)}
            scheme, host, port, path = parts.scheme, parts.hostname, parts.port, parts.path
        except ValueError:
            # The library's messages, and urllib's, quote pieces of the URL.
            raise InvalidInput.of(FIELD, _EXPECTED) from None
        if scheme == "unix":
            right = bool(path.strip("/")) and not host
            label = f"unix://{path}"
        else:
            right = bool(host) and re.fullmatch(r"/?|/\d+/?", path) is not None
            label = f"{scheme}://{host}:{6379 if port is None else port}"
        # An unencoded # or ? in a password would cut the URL there, and leave a piece of it as the host or an option.
        extra = {name for name in options if name not in _PLAIN}
        if not right or "#" in url or (extra and scheme != "rediss"):
            raise InvalidInput.of(FIELD, _EXPECTED)
        if any(not name.startswith("ssl_") for name in extra):
            raise InvalidInput.of(FIELD, _EXPECTED)
        options.setdefault("connection_class", Connection)
        address = cls(label, options)
        try:
            address.connection()
        except (TypeError, ValueError, RedisError):
            raise InvalidInput.of(FIELD, _EXPECTED) from None
        return address

    def connection(self) -> "AbstractConnection":
        """A connection that is not connected yet; it never tries twice and has no time limits of its own."""
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        options = dict(self._options)
        connection_class: type[AbstractConnection] = options.pop("connection_class")
        return connection_class(
            **options,
            # Version 2 of the protocol, which every Redis, Valkey and proxy in between speaks.
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=None,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )
