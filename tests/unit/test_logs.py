import asyncio
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from modelswarm import logs


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before when the test is over."""
    logger = logging.getLogger()
    quiet = [logging.getLogger(name) for name in ("kopf.objects", "kopf.activities", "httpx", "httpcore")]
    before = (logger.level, list(logger.handlers), [each.level for each in quiet])
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]
    for each, level in zip(quiet, before[2], strict=True):
        each.setLevel(level)


def formatted(record: logging.LogRecord) -> dict[str, object]:
    text = logs.JsonFormatter().format(record)
    assert "\n" not in text
    entry: dict[str, object] = json.loads(text)
    return entry


def record(message: str = "took %d s", *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("modelswarm.x", logging.WARNING, "x.py", 1, message, args or (3,), None)
    made.created = 1748779200.25
    vars(made).update(extra)
    return made


def test_a_line_is_one_json_object() -> None:
    assert formatted(record()) == {
        "time": "2025-06-01T12:00:00.250+00:00",
        "level": "warning",
        "logger": "modelswarm.x",
        "message": "took 3 s",
    }


def test_plain_extras_are_in_it_and_others_are_not() -> None:
    entry = formatted(record(reconcile="7f3a", attempt=2, seconds=1.5, last=True, obj={"a": "secret"}, none=None))
    assert {key: entry.get(key) for key in ("reconcile", "attempt", "seconds", "last")} == {
        "reconcile": "7f3a",
        "attempt": 2,
        "seconds": 1.5,
        "last": True,
    }
    assert "obj" not in entry
    assert "none" not in entry


def about(record: logging.LogRecord) -> logging.LogRecord:
    assert logs.AboutFilter().filter(record)
    return record


def test_lines_say_what_they_are_about_those_of_tasks_too() -> None:
    async def inside() -> dict[str, object]:
        return formatted(about(record()))

    async def run() -> dict[str, object]:
        with logs.about(controller="p2ptask", object="ns/a", reconcile_id="7f3a-1", model="org/m"):
            started = asyncio.create_task(inside())
        return await started

    found = asyncio.run(run())
    assert {key: found[key] for key in ("controller", "object", "reconcile_id", "model")} == {
        "controller": "p2ptask",
        "object": "ns/a",
        "reconcile_id": "7f3a-1",
        "model": "org/m",
    }
    assert "object" not in formatted(about(record()))


def test_the_inner_one_wins_and_what_the_line_itself_says() -> None:
    with logs.about(controller="p2ptask", object="ns/a", reconcile_id="1", model="m"):
        with logs.about(controller="model", object="b", reconcile_id="2"):
            inner = formatted(about(record()))
            own = formatted(about(record(object="ns/c")))
        outer = formatted(about(record()))
    assert (inner["controller"], inner["object"], "model" in inner) == ("model", "b", False)
    assert own["object"] == "ns/c"
    assert outer["object"] == "ns/a"


def test_text_names_the_object_once(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    with logs.about(controller="p2ptask", object="ns/a", reconcile_id="7f3a-1"):
        logging.getLogger("modelswarm.x").info("cannot be asked")
        logging.getLogger("modelswarm.x").info("p2ptask ns/a: trying again")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("cannot be asked [p2ptask ns/a 7f3a-1]")
    assert second.endswith("p2ptask ns/a: trying again [7f3a-1]")


def test_a_message_of_several_lines_is_one_line() -> None:
    assert formatted(record("a\nb%s", "c"))["message"] == "a\nbc"


def test_an_error_has_its_traceback() -> None:
    made = record()
    try:
        raise ValueError("broken")
    except ValueError:
        made.exc_info = sys.exc_info()
    error = str(formatted(made)["error"])
    assert error.startswith("Traceback")
    assert error.endswith("ValueError: broken")


def test_json_goes_to_standard_error(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("modelswarm.x").info("hello", extra={"reconcile": "7f3a"})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["reconcile"] == "7f3a"


def test_text_is_for_people(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "text")
    logging.getLogger("modelswarm.x").info("not shown")
    logging.getLogger("modelswarm.x").warning("shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING modelswarm.x: shown")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param("debug", logging.WARNING, id="also when we are talkative"),
        pytest.param("info", logging.WARNING, id="by default"),
        pytest.param("error", logging.ERROR, id="never louder than everything else"),
    ],
)
def test_others_are_kept_quiet(root: logging.Logger, level: str, expected: int) -> None:
    logs.configure(level, "json")
    assert root.level == getattr(logging, level.upper())
    for name in ("kopf.objects", "kopf.activities", "httpx", "httpcore"):
        assert logging.getLogger(name).level == expected


def test_configuring_twice_does_not_print_twice(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        logs.configure("info", "text")
    logging.getLogger("modelswarm.x").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
