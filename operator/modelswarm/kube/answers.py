"""What the API server's answers mean: which error an HTTP status is, and what it says."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json

from modelswarm.errors import Conflict, Forbidden, Invalid, KubeError, NotFound, Unavailable

LONGEST_MESSAGE = 2000

_ERRORS: dict[int, type[KubeError]] = {
    HTTPStatus.UNAUTHORIZED: Forbidden,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Unavailable,
    HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
}


def error_for(status: int, headers: Mapping[str, str], body: bytes) -> KubeError:
    """The error of an answer that is not a success. Its message is the server's own."""
    answer = _status_object(body)
    kind = _ERRORS.get(status, Unavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Invalid)
    message = str(answer.get("message") or f"HTTP {status}")[:LONGEST_MESSAGE]
    return kind(message, status=status, retry_after=_retry_after(headers, answer))


def _status_object(body: bytes) -> dict[str, Any]:
    """The ``metav1.Status`` in the body; empty if something else answered (a proxy, an overloaded server)."""
    try:
        answer = from_json(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _retry_after(headers: Mapping[str, str], answer: dict[str, Any]) -> float | None:
    details = answer.get("details")
    for value in (headers.get("Retry-After"), details.get("retryAfterSeconds") if isinstance(details, dict) else None):
        try:
            if value is not None and float(value) > 0:
                return float(value)
        except ValueError:  # a date: the API server does not send one
            continue
    return None
