"""The pure parts, as tables: settings, answers of a hub, spans, records, lines and the summary."""

import json
from pathlib import Path

import httpx
import pytest

from modelswarm.api.openmodel import HubName
from modelswarm.content.manifest import ManifestFile
from modelswarm.content.source import HubSource, Provider, StoreSource
from modelswarm.errors import ContentReason, LoadError
from modelswarm.loader.gate import LONGEST_WAIT, Gate
from modelswarm.loader.origin import check_linked, refusal, same_origin, sends_whole
from modelswarm.loader.outcome import Exit, Reason, Transient, exit_code
from modelswarm.loader.part import Part, split
from modelswarm.loader.progress import Meter, duration, size
from modelswarm.loader.settings import read_credentials, read_number, read_source
from modelswarm.loader.summary import MOST_BYTES, Summary

HUB = {"MODEL_SOURCE_TYPE": "modelhub", "MODEL_ID": "Qwen/Qwen2-0.5B"}
OSS = {
    "MODEL_SOURCE_TYPE": "objstore",
    "PROVIDER": "OSS",
    "ENDPOINT": "oss-cn-beijing.aliyuncs.com",
    "BUCKET": "models",
    "MODEL_PATH": "team/Qwen2.5-7B",
}


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        pytest.param(HUB, HubSource(HubName.HUGGINGFACE, "Qwen/Qwen2-0.5B"), id="a hub, defaults"),
        pytest.param(
            {**HUB, "MODEL_HUB_NAME": "ModelScope", "REVISION": "v1"},
            HubSource(HubName.MODELSCOPE, "Qwen/Qwen2-0.5B", "v1"),
            id="another hub, a revision",
        ),
        pytest.param(
            {**HUB, "MODEL_FILENAME": "q4.gguf"},
            HubSource(HubName.HUGGINGFACE, "Qwen/Qwen2-0.5B", filename="q4.gguf"),
            id="one file",
        ),
        pytest.param(
            {**HUB, "MODEL_ALLOW_PATTERNS": "*.json,*.txt", "MODEL_IGNORE_PATTERNS": "a*,,b*"},
            HubSource(
                HubName.HUGGINGFACE,
                "Qwen/Qwen2-0.5B",
                allow_patterns=("*.json", "*.txt"),
                ignore_patterns=("a*", "b*"),
            ),
            id="patterns",
        ),
        pytest.param(
            {**HUB, "REVISION": "", "MODEL_FILENAME": "", "MODEL_ALLOW_PATTERNS": "", "MODEL_HUB_NAME": ""},
            HubSource(HubName.HUGGINGFACE, "Qwen/Qwen2-0.5B"),
            id="empty variables are absent ones",
        ),
        pytest.param(
            OSS,
            StoreSource(Provider.OSS, "models", "team/Qwen2.5-7B", "oss-cn-beijing.aliyuncs.com"),
            id="OSS",
        ),
        pytest.param(
            {**OSS, "PROVIDER": "s3", "MODEL_PATH": "/a/b/"}, StoreSource(Provider.S3, "models", "a/b"), id="S3"
        ),
        pytest.param({**OSS, "PROVIDER": "GCS"}, StoreSource(Provider.GCS, "models", "team/Qwen2.5-7B"), id="GCS"),
    ],
)
def test_the_environment_names(environ: dict[str, str], source: HubSource | StoreSource) -> None:
    assert read_source(environ) == source


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, "MODEL_SOURCE_TYPE is ''", id="nothing"),
        pytest.param({"MODEL_SOURCE_TYPE": "ftp"}, "must be modelhub or objstore", id="an unknown type"),
        pytest.param({"MODEL_SOURCE_TYPE": "modelhub"}, "MODEL_ID is not set", id="no model"),
        pytest.param({**HUB, "MODEL_ID": "../etc"}, "is not a model id", id="a model that is a path"),
        pytest.param({**HUB, "MODEL_HUB_NAME": "Ollama"}, "Huggingface, ModelScope", id="an unknown hub"),
        pytest.param(
            {**HUB, "MODEL_FILENAME": "a", "MODEL_ALLOW_PATTERNS": "b"}, "cannot be combined", id="file and patterns"
        ),
        pytest.param({**OSS, "PROVIDER": "AZURE"}, "OSS, S3, GCS", id="an unknown store"),
        pytest.param({**OSS, "ENDPOINT": ""}, "ENDPOINT is not set", id="OSS without endpoint"),
        pytest.param({**OSS, "MODEL_PATH": "a/../b"}, "has no bucket or no path", id="a path that climbs"),
    ],
)
def test_the_environment_is_refused_with(environ: dict[str, str], words: str) -> None:
    with pytest.raises(LoadError) as caught:
        read_source(environ)
    assert words in caught.value.message
    assert exit_code(caught.value.reason) is Exit.NEEDS_PERSON


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_number_is_refused(text: str) -> None:
    with pytest.raises(LoadError, match="MODELSWARM_LOAD_PARALLEL"):
        read_number({"MODELSWARM_LOAD_PARALLEL": text}, "MODELSWARM_LOAD_PARALLEL", 4)


SECRETS = {
    "HF_TOKEN": "hf",
    "MODELSCOPE_API_TOKEN": "ms",
    "OSS_ACCESS_KEY_ID": "oss-id",
    "OSS_ACCESS_KEY_SECRET": "oss-key",
    "AWS_ACCESS_KEY_ID": "aws-id",
    "AWS_SECRET_ACCESS_KEY": "aws-key",
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(HubSource(HubName.HUGGINGFACE, "a/b"), ("hf", None, None, None), id="Hugging Face"),
        pytest.param(HubSource(HubName.MODELSCOPE, "a/b"), (None, None, None, "ms"), id="ModelScope"),
        pytest.param(StoreSource(Provider.OSS, "b", "p", "e"), (None, "oss-id", "oss-key", None), id="OSS"),
        pytest.param(StoreSource(Provider.S3, "b", "p"), (None, "aws-id", "aws-key", None), id="S3"),
    ],
)
def test_a_source_gets_its_own_secrets_only(source: HubSource | StoreSource, expected: tuple[str | None, ...]) -> None:
    found = read_credentials(SECRETS, source)
    assert (found.hub_token, found.access_key_id, found.access_key_secret, found.modelscope_token) == expected


FILE = ManifestFile("a.bin", 1000, f"sha256:{'a' * 64}")


@pytest.mark.parametrize(
    ("status", "headers", "start", "expected"),
    [
        pytest.param(206, {"content-range": "bytes 100-999/1000"}, 100, False, id="the range"),
        pytest.param(200, {"content-range": "bytes 100-999/1000"}, 100, False, id="the range under status 200"),
        pytest.param(206, {"content-range": "bytes 100-999/*"}, 100, False, id="the range, of an unknown length"),
        pytest.param(200, {"content-length": "1000"}, 100, True, id="the whole file"),
        pytest.param(200, {}, 0, True, id="the whole file without a length"),
        pytest.param(200, {"content-length": "400", "content-encoding": "gzip"}, 0, True, id="compressed"),
        pytest.param(206, {}, 100, ContentReason.SOURCE_UNAVAILABLE, id="a range that is not said"),
        pytest.param(206, {"content-range": "bytes 0-9/1000"}, 100, ContentReason.SOURCE_UNAVAILABLE, id="another"),
        pytest.param(206, {"content-range": "bytes 100-1999/2000"}, 100, Reason.SOURCE_CHANGED, id="of another file"),
        pytest.param(200, {"content-length": "999"}, 0, Reason.SOURCE_CHANGED, id="a file of another size"),
        pytest.param(404, {}, 0, None, id="no file"),
    ],
)
def test_an_answer_is(status: int, headers: dict[str, str], start: int, expected: bool | str | None) -> None:
    if isinstance(expected, str):
        with pytest.raises(LoadError) as caught:
            sends_whole(status, headers, FILE, start)
        assert caught.value.reason == expected
    else:
        assert sends_whole(status, headers, FILE, start) is expected


@pytest.mark.parametrize(
    ("status", "headers", "at_hub", "reason", "retried"),
    [
        pytest.param(401, {}, True, ContentReason.ACCESS_DENIED, False, id="401 at the hub"),
        pytest.param(403, {}, True, ContentReason.ACCESS_DENIED, False, id="403 at the hub"),
        pytest.param(403, {}, False, ContentReason.SOURCE_UNAVAILABLE, True, id="403 at the CDN: an expired link"),
        pytest.param(404, {}, True, ContentReason.SOURCE_NOT_FOUND, False, id="404 at the hub"),
        pytest.param(404, {}, False, ContentReason.SOURCE_UNAVAILABLE, True, id="404 at the CDN"),
        pytest.param(
            404, {"x-error-code": "RevisionNotFound"}, True, ContentReason.REVISION_NOT_FOUND, False, id="rev"
        ),
        pytest.param(416, {}, False, Reason.SOURCE_CHANGED, False, id="416"),
        pytest.param(429, {"retry-after": "7"}, True, ContentReason.RATE_LIMITED, True, id="429"),
        pytest.param(500, {}, True, ContentReason.SOURCE_UNAVAILABLE, True, id="500"),
        pytest.param(408, {}, True, ContentReason.SOURCE_UNAVAILABLE, True, id="408"),
    ],
)
def test_a_refusal_means(status: int, headers: dict[str, str], at_hub: bool, reason: str, retried: bool) -> None:
    error = refusal(status, httpx.Headers(headers), FILE, at_hub=at_hub, host="hub", token=None)
    assert error.reason == reason
    assert isinstance(error, Transient) is retried
    if isinstance(error, Transient) and status == 429:
        assert (error.retry_after, error.counts) == (7.0, False)


@pytest.mark.parametrize(
    ("headers", "changed"),
    [
        pytest.param({"x-linked-size": "1000", "x-linked-etag": f'"{"a" * 64}"'}, False, id="the pinned file"),
        pytest.param({}, False, id="nothing said"),
        pytest.param({"x-linked-size": "1001"}, True, id="another size"),
        pytest.param({"x-linked-etag": f'"{"b" * 64}"'}, True, id="another digest"),
        pytest.param({"x-linked-etag": f'"{"b" * 40}"'}, False, id="an id of another kind"),
    ],
)
def test_a_redirect_is_to(headers: dict[str, str], changed: bool) -> None:
    if changed:
        with pytest.raises(LoadError, match=r"a\.bin: the file at the origin"):
            check_linked(httpx.Headers(headers), FILE)
    else:
        check_linked(httpx.Headers(headers), FILE)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("https://hub.example/other?x=1", True),
        ("https://hub.example:443/", True),
        ("https://HUB.example/", True),
        ("http://hub.example/", False),
        ("https://hub.example:8443/", False),
        ("https://cdn.hub.example/", False),
        ("https://hub.example.evil/", False),
    ],
)
def test_the_hubs_own_origin(other: str, same: bool) -> None:
    assert same_origin(httpx.URL("https://hub.example/model"), httpx.URL(other)) is same


@pytest.mark.parametrize(
    ("total", "span", "count"),
    [(0, 10, 0), (1, 10, 1), (19, 10, 1), (20, 10, 2), (100, 10, 10), (320, 10, 16), (10_000, 10, 250)],
)
def test_spans_cover_the_file(total: int, span: int, count: int) -> None:
    spans = split(total, span)
    assert len(spans) == count
    assert [one.start for one in spans] == [0, *(one.end for one in spans)][:count]
    assert sum(one.end - one.start for one in spans) == total


@pytest.mark.parametrize(
    ("record", "length", "done"),
    [
        pytest.param(None, 300, 0, id="bytes without a record"),
        pytest.param([[0, 500, 300], [500, 1000, 600]], 600, 400, id="a record and its bytes"),
        pytest.param([[0, 500, 300], [500, 1000, 600]], 550, 0, id="a record of more bytes than there are"),
        pytest.param([[0, 500, 300], [600, 1000, 700]], 800, 0, id="a record with a gap"),
        pytest.param([[0, 500, 300], [500, 900, 600]], 800, 0, id="a record of another size"),
        pytest.param([[0, 500, 501], [500, 1000, 600]], 800, 0, id="a record beyond its span"),
        pytest.param([["a"]], 800, 0, id="a record of something else"),
        pytest.param([[0, 1000, 600]], 600, 600, id="a record of one span"),
    ],
)
def test_a_part_takes_over(tmp_path: Path, record: object, length: int, done: int) -> None:
    (tmp_path / "x.part").write_bytes(bytes(length))
    if record is not None:
        (tmp_path / "x.json").write_text(json.dumps(record))
    part = Part(tmp_path / "x", 1000, 100, Meter(1000, 1))
    part.open()
    assert part.done == done
    assert part.path.stat().st_size == (length if done else 0)
    part.close()


def test_a_part_of_one_span_goes_by_its_length(tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(bytes(300))
    part = Part(tmp_path / "x", 1000, 1000, Meter(1000, 1))
    part.open()
    assert (part.done, part.frontier) == (300, 300)
    part.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.part"]


class TestGate:
    def test_it_is_not_opened_early_by_a_later_answer(self) -> None:
        clock = [100.0]
        lines: list[str] = []
        gate = Gate(lines.append, now=lambda: clock[0])
        gate.close(30, "hub")
        gate.close(5, "hub")
        assert gate._until == 130
        assert lines == ["hub asks for patience; continuing in 30 s"]

    def test_it_does_not_stay_closed_for_days(self) -> None:
        gate = Gate(lambda _: None, now=lambda: 0.0)
        gate.close(1e9, "hub")
        assert gate._until == LONGEST_WAIT

    async def test_open_it_lets_through(self) -> None:
        await Gate(lambda _: None).wait()


def test_the_progress_line() -> None:
    clock = [0.0]
    meter = Meter(1000 << 20, 10, now=lambda: clock[0])
    meter.received("present", 200 << 20)
    meter.finished(verified=True)
    assert meter.line() == "20% 200.0 MiB of 1000.0 MiB, 0 B/s, ETA unknown, 1/10 files"
    clock[0] = 2.0
    meter.received("origin", 400 << 20)
    assert meter.line() == "60% 600.0 MiB of 1000.0 MiB, 200.0 MiB/s, ETA 2s, 1/10 files"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (125, "2m05s"), (3725, "1h02m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("message", ["short", "x" * 10_000, '"\n' * 5_000, "é" * 5_000])
def test_the_summary_is_json_that_fits(message: str) -> None:
    text = Summary("Failed", "org/model", "StorageError", message).to_json()
    assert len(text.encode()) <= MOST_BYTES
    document = json.loads(text)
    assert document["message"].rstrip("…") == message[: len(document["message"].rstrip("…"))]
    assert list(document) == [
        "result",
        "reason",
        "message",
        "model",
        "revision",
        "files",
        "bytes",
        "seconds",
        "bytesBySource",
        "unverified",
    ]


@pytest.mark.parametrize("reason", [*Reason, *ContentReason])
def test_every_reason_has_an_exit_code(reason: str) -> None:
    assert exit_code(reason) in set(Exit) - {Exit.OK}
