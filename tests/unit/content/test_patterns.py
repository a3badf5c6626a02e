"""Patterns mean what they mean to ``huggingface_hub``, the library itself being the judge."""

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import example, given
from hypothesis import strategies as st

from modelswarm.content.patterns import select

# A small alphabet, so that patterns often do match: separators, wildcards, classes, case.
_PATHS = st.lists(st.text(alphabet="abA./\\-_1[]*?! é", min_size=1, max_size=12), max_size=12)
_PATTERNS = st.none() | st.lists(st.text(alphabet="abA./\\-_1[]*?!^ é", max_size=8), max_size=4)


@given(_PATHS, _PATTERNS, _PATTERNS)
@example(["a/b.json", "a.json", "A.json"], ["a/"], None)
@example(["a/b.json", "a.json"], ["*.json"], ["a/*"])
@example(["a/b.json", "a.json"], [], None)
@example(["a\\b.json", "a/b.json"], ["a\\"], None)
@example(["a[1].bin", "a1.bin"], ["a[1].bin"], None)
@example(["a/b"], None, [""])
def test_patterns_as_huggingface_hub(paths: list[str], allow: list[str] | None, ignore: list[str] | None) -> None:
    expected = list(filter_repo_objects(paths, allow_patterns=allow, ignore_patterns=ignore))
    assert select(paths, allow_patterns=allow, ignore_patterns=ignore) == expected


@given(_PATHS, st.text(alphabet="abA./-_1*?", min_size=1, max_size=8))
def test_filename_is_an_allow_pattern_as_in_llmaz(paths: list[str], filename: str) -> None:
    chosen = select(paths, filename=filename)
    if filename not in paths:
        assert chosen == list(filter_repo_objects(paths, allow_patterns=[filename]))
    else:
        assert chosen == [filename]


@pytest.mark.parametrize(
    ("filename", "chosen"),
    [
        pytest.param("q4.gguf", ["q4.gguf"], id="a name"),
        pytest.param("model[1].gguf", ["model[1].gguf"], id="a name that would not match itself as a pattern"),
        pytest.param("q*.gguf", ["q4.gguf", "q8.gguf"], id="a pattern"),
        pytest.param("parts/", ["parts/1", "parts/2"], id="a folder"),
        pytest.param("missing", [], id="a file that is not there"),
    ],
)
def test_filename(filename: str, chosen: list[str]) -> None:
    assert select(["model[1].gguf", "q4.gguf", "q8.gguf", "parts/1", "parts/2"], filename=filename) == chosen
