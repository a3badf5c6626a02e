"""Who may read what: tokens and the repositories each was let into."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


class Tokens:
    """Known tokens, each with the patterns of the gated or private repositories it may read.

    A token without patterns is a valid login that is on nobody's list, which a hub tells apart from both
    an unknown token and an anonymous request.
    """

    def __init__(self) -> None:
        self._granted: dict[str, set[str]] = {}

    def allow(self, token: str, repositories: Iterable[str] = ()) -> None:
        """Make `token` known and add to what it may read."""
        self._granted.setdefault(token, set()).update(repositories)

    def forget(self, token: str) -> None:
        """Make `token` unknown, as when its owner revokes it."""
        self._granted.pop(token, None)

    def knows(self, token: str) -> bool:
        return token in self._granted

    def may_read(self, token: str | None, repository: str) -> bool:
        """Whether `token` is on the list of `repository`."""
        return any(fnmatchcase(repository, pattern) for pattern in self._granted.get(token or "", ()))
