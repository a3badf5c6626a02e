"""Task ids as dfdaemon itself computes them, recorded in ``vectors.json`` for the tests of the pure functions.

``pytest tests/dragonfly/test_task_ids.py --record-task-ids`` rewrites the file; without it the file has to agree.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from dev.dragonfly.builds import pinned_crate
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, HubThread, Repository

VECTORS = Path(__file__).parent / "vectors.json"

# The address is part of every URL, and so of every id. Nobody else has this one; it is loopback like all of 127/8.
ADDRESS, PORT, CDN_PORT = "127.63.0.1", 18080, 18081
MODEL = "org/vectors"
FILES = {
    "weights.bin": b"weights",
    "a b+c.bin": b"space and plus",
    "é~(1)'!*.bin": b"more than ASCII",
    "dir/sub/weights.bin": b"deeper",
    "100%.bin": b"percent",
}
SIGNATURE = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature=0f"


@dataclass(frozen=True, slots=True)
class Case:
    """What dfget is told. ``filtered_query_params`` None means its default list."""

    path: str = "weights.bin"
    query: str = ""
    tag: str = ""
    application: str = ""
    filtered_query_params: tuple[str, ...] | None = None
    piece_length: int | None = None
    scheme: str = "http"
    file: str = "weights.bin"


CASES = {
    "plain": Case(),
    "tag": Case(tag="v1"),
    "application": Case(application="modelswarm"),
    "tag and application": Case(tag="v1", application="modelswarm"),
    "tag and application are joined without a separator": Case(tag="v1modelswarm"),
    "deeper path": Case("dir/sub/weights.bin", file="dir/sub/weights.bin"),
    "escaped space, bare plus": Case("a%20b+c.bin", file="a b+c.bin"),
    "escaped plus": Case("a%20b%2Bc.bin", file="a b+c.bin"),
    "escaped UTF-8 and bare marks": Case("%C3%A9~(1)'!*.bin", file="é~(1)'!*.bin"),
    "bare UTF-8": Case("é~(1)'!*.bin", file="é~(1)'!*.bin"),
    "lower-case escapes": Case("%c3%a9~(1)'!*.bin", file="é~(1)'!*.bin"),
    "escaped percent": Case("100%25.bin", file="100%.bin"),
    "dot segments": Case("dir/../weights.bin"),
    "query": Case(query="download=true"),
    "query not in alphabetical order": Case(query="b=2&a=1"),
    "query with escapes": Case(query="name=a%20b+c%2Fd&empty=&bare"),
    "signature is filtered": Case(query=SIGNATURE),
    "signature among others is filtered": Case(query=f"download=true&{SIGNATURE}&b=2"),
    "own filter replaces the default list": Case(query="download=true&ns=x", filtered_query_params=("download",)),
    "piece length": Case(piece_length=8 << 20),
    "scheme in capitals": Case(scheme="HTTP"),
}


@dataclass(frozen=True, slots=True)
class Vector:
    """One line of the file. ``digest`` is that of the content, which has no part in the id."""

    name: str
    url: str
    tag: str
    application: str
    filtered_query_params: tuple[str, ...] | None
    piece_length: int | None
    digest: str
    id: str


@pytest.fixture(scope="module")
def origin() -> Iterator[Hub]:
    repository = Repository(MODEL)
    repository.move("main", repository.commit(FILES))
    with HubThread(Hub(repository, host=ADDRESS, port=PORT, cdn_port=CDN_PORT)) as running:
        yield running.hub


def test_daemon_computes_the_recorded_ids(
    dragonfly: DragonflyStack, origin: Hub, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    computed = [vector(dragonfly, origin, tmp_path, name, case) for name, case in CASES.items()]
    content = {"client": pinned_crate().version, "vectors": [asdict(one) for one in computed]}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if request.config.getoption("--record-task-ids", default=False):
        VECTORS.write_text(text)
    assert text == VECTORS.read_text(), "run pytest tests/dragonfly/test_task_ids.py --record-task-ids"


def vector(dragonfly: DragonflyStack, origin: Hub, folder: Path, name: str, case: Case) -> Vector:
    """Download through one daemon, and read from the daemon's log which task that was."""
    daemon = dragonfly.daemons[0]
    url = f"{case.scheme}://{ADDRESS}:{PORT}/{MODEL}/resolve/{origin.repositories[MODEL].head}/{case.path}"
    url += f"?{case.query}" if case.query else ""
    with daemon.recorded_tasks() as ids:
        download = daemon.dfget(
            url,
            folder / "out",
            tag=case.tag,
            application=case.application,
            filtered_query_params=case.filtered_query_params,
            piece_length=f"{case.piece_length}B" if case.piece_length else None,
        )
    assert download.succeeded, f"{name}: {download.output}"
    content = (folder / "out").read_bytes()
    assert content == FILES[case.file], name
    assert len(ids) == 1, f"{name}: {ids}"
    [id] = ids
    assert daemon.task_file(id).read_bytes() == content
    return Vector(
        name=name,
        url=url,
        tag=case.tag,
        application=case.application,
        filtered_query_params=case.filtered_query_params,
        piece_length=case.piece_length,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        id=id,
    )
