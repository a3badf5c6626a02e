"""How commands are taken out of the documentation; no cluster is needed."""

import pytest

from tests.e2e.support.page import Command, blocks_of, commands_of, section_of

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
        pytest.param("ls", [Command("ls")], id="a command"),
        pytest.param("ls\nA  B\n1  2", [Command("ls", "A  B\n1  2")], id="a command and what it prints"),
        pytest.param("ls \\\n  -l\nA", [Command("ls \\\n  -l", "A")], id="a line goes on after a backslash"),
        pytest.param("for a; do\n> b\n> done\n$ ls", [Command("for a; do\nb\ndone"), Command("ls")], id="a loop"),
        pytest.param(
            "cat > x <<'END'\na:\n$ b\nEND\nout", [Command("cat > x <<'END'\na:\n$ b\nEND", "out")], id="a document"
        ),
    ],
)
def test_commands_are_taken_as_they_are_typed(text: str, wanted: list[Command]) -> None:
    assert commands_of(PAGE.replace("{commands}", text)) == wanted


def test_a_section_ends_where_the_next_one_begins() -> None:
    assert section_of(PAGE, "Second") == "Second\nnothing\n"
    assert blocks_of(section_of(PAGE, "First"), "yaml") == ["a:\n  b: 1\n"]
    with pytest.raises(ValueError, match="no section 'Third'"):
        section_of(PAGE, "Third")
