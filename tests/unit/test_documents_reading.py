"""How commands are taken out of the documentation."""

import pytest

from tests.documents import Step, blocks_of, section_of, transcribed

PAGE = """# Title

## First

```console
$ {commands}
```

   ```yaml
   a:
     b: 1
   ```

## Second
nothing
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("ls", [Step("ls")], id="a command"),
        pytest.param("ls\nA  B\n1  2", [Step("ls", "A  B\n1  2")], id="a command and what it prints"),
        pytest.param("ls \\\n  -l\nA", [Step("ls \\\n  -l", "A")], id="a line goes on after a backslash"),
        pytest.param("for a; do\n> b\n> done\n$ ls", [Step("for a; do\nb\ndone"), Step("ls")], id="a loop"),
        pytest.param(
            "cat > x <<'END'\na:\n$ b\nEND\nout", [Step("cat > x <<'END'\na:\n$ b\nEND", "out")], id="a document"
        ),
    ],
)
def test_commands_are_taken_as_they_are_typed(text: str, wanted: list[Step]) -> None:
    assert transcribed(PAGE.replace("{commands}", text)) == wanted


def test_a_section_ends_where_the_next_one_begins() -> None:
    assert section_of(PAGE, "Second") == "Second\nnothing\n"
    assert blocks_of(section_of(PAGE, "First"), "yaml") == ["a:\n  b: 1\n"]
    with pytest.raises(ValueError, match="no section 'Third'"):
        section_of(PAGE, "Third")
