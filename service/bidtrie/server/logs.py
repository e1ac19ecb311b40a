"""JSON logs: one line an event.

What users send is never logged, and neither are the messages of unexpected exceptions, which may quote it.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """Fields: ts (RFC 3339, UTC), level, logger, event, what was passed as `extra`, and error and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, where = record.exc_info
            line["error"] = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
            line["traceback"] = _frames(where)
        return json.dumps(line, default=str, ensure_ascii=False)


def _frames(where: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(where)]


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of the process to `stream` (default: stderr); `level` is debug, info, warning or error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
