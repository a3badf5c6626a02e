"""Which files of a repository are wanted: ``filename``, ``allowPatterns`` and ``ignorePatterns``.

They mean what they mean to ``huggingface_hub.snapshot_download`` (``filter_repo_objects``; a property test compares
the two). That library itself is not needed at run time.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def select(
    paths: Iterable[str],
    *,
    filename: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
) -> list[str]:
    """The wanted ones of ``paths``, in the order given.

    * ``*``, ``?`` and ``[...]`` are shell wildcards that do not stop at ``/``; case matters; a backslash is a ``/``.
    * A pattern that ends in ``/`` means everything below that folder.
    * ``allow_patterns`` of None allows everything, an empty list nothing; what ``ignore_patterns`` match is left out.
    * ``filename`` is an allow pattern as well (llmaz's loader passes it as ``allow_patterns=[filename]``), save that
      a file of exactly that name is taken literally: ``model[1].gguf`` as a pattern would not match itself.
    """
    candidates = list(paths)
    if filename is not None:
        if filename in candidates:
            return [filename]
        allow_patterns = [filename]
    allowed = None if allow_patterns is None else [_normalise_pattern(pattern) for pattern in allow_patterns]
    ignored = [_normalise_pattern(pattern) for pattern in ignore_patterns or ()]
    return [path for path in candidates if _is_wanted(path.replace("\\", "/"), allowed, ignored)]


def _is_wanted(path: str, allowed: Sequence[str] | None, ignored: Sequence[str]) -> bool:
    if allowed is not None and not any(fnmatchcase(path, pattern) for pattern in allowed):
        return False
    return not any(fnmatchcase(path, pattern) for pattern in ignored)


def _normalise_pattern(pattern: str) -> str:
    pattern = pattern.replace("\\", "/")
    return f"{pattern}*" if pattern.endswith("/") else pattern
