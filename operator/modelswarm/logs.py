"""Logging: one JSON object a line, or text for people; each line says which object and which reconcile it is about."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime"}
_about: ContextVar[Mapping[str, str] | None] = ContextVar("log_about", default=None)


@contextmanager
def about(*, controller: str, object: str, reconcile_id: str, **more: str) -> Iterator[None]:
    """Every line that is logged inside says this, those of tasks too that are started inside.

    ``controller`` is the kind in lower case, ``object`` NAMESPACE/NAME (or NAME), so that one search finds what the
    operator and every agent say about an object. ``reconcile_id`` is one attempt of one process.
    """
    token = _about.set({"controller": controller, "object": object, "reconcile_id": reconcile_id, **more})
    try:
        yield
    finally:
        _about.reset(token)


class AboutFilter(logging.Filter):
    """Adds to each record what ``about`` said; what the record itself says wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in (_about.get() or {}).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``, what was passed as ``extra``, and ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD and _is_plain(value)})
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """One line for people. The object stands at its end, unless the message names it already."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        line = super().formatMessage(record)
        found = [str(vars(record).get(name, "")) for name in ("controller", "object", "reconcile_id")]
        missing = [value for value in found if value and value.lower() not in line.lower()]
        return f"{line} [{' '.join(missing)}]" if missing else line


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def configure(level: str, style: str) -> None:
    """Send everything to standard error. kopf reports each watch event at INFO, which is ours to say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(AboutFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    quiet = ("kopf.objects", "kopf.activities", "httpx", "httpcore", "aiohttp.access")
    for name in quiet:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
