from pathlib import Path

import pytest

from modelswarm.agent.metainfo import signing
from modelswarm.agent.metainfo.signing import (
    HEADER,
    WINDOW,
    Caller,
    Request,
    SecretFile,
    Signer,
    no_secrets,
    parse_secrets,
)
from modelswarm.errors import PeerRefused, SettingsError

OLD, NEW, FOREIGN = b"the old secret, 16+", b"the new secret, 16+", b"a foreign secret"
ASKED = Request("POST", "10.0.0.1:8081", "/v1/blobs?x=1", b"body")


class Wall:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def pair(ours: tuple[bytes, ...], theirs: tuple[bytes, ...]) -> tuple[Signer, Signer, Wall]:
    wall = Wall()
    return Signer(lambda: ours, wall), Signer(lambda: theirs, wall), wall


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param((OLD,), (OLD,), id="one Secret"),
        pytest.param((OLD,), (NEW, OLD), id="rotation: they have the new one already"),
        pytest.param((NEW, OLD), (OLD, NEW), id="rotation: we do"),
    ],
)
def test_who_shares_a_secret_is_believed(ours: tuple[bytes, ...], theirs: tuple[bytes, ...]) -> None:
    client, server, _ = pair(ours, theirs)
    headers, nonce = client.sign(ASKED)
    caller = server.check(ASKED, headers[HEADER])
    assert caller.nonce == nonce
    client.check_answer(nonce, 200, b"yes", server.sign_answer(caller, 200, b"yes")[HEADER])


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(Request("GET", ASKED.host, ASKED.target, ASKED.body), id="method"),
        pytest.param(Request("POST", "10.0.0.2:8081", ASKED.target, ASKED.body), id="host"),
        pytest.param(Request("POST", ASKED.host, "/v1/blobs?x=2", ASKED.body), id="query"),
        pytest.param(Request("POST", ASKED.host, ASKED.target, b"other"), id="body"),
    ],
)
def test_what_is_changed_on_the_way_is_refused(changed: Request) -> None:
    client, server, _ = pair((OLD,), (OLD,))
    headers, _ = client.sign(ASKED)
    with pytest.raises(PeerRefused, match="another Secret"):
        server.check(changed, headers[HEADER])


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("v2 1 2 3", id="another form"),
        pytest.param(f"v1 1800000000 {'a' * 32} {'b' * 64}\n", id="with a line end"),
        pytest.param(f"v1 {'9' * 400} {'a' * 32} {'b' * 64}", id="a time too long"),
    ],
)
def test_what_is_not_signed_is_refused(header: str | None) -> None:
    _, server, _ = pair((OLD,), (OLD,))
    with pytest.raises(PeerRefused, match="not signed"):
        server.check(ASKED, header)


def test_another_secret_is_refused_both_ways() -> None:
    client, server, _ = pair((OLD,), (FOREIGN,))
    headers, nonce = client.sign(ASKED)
    with pytest.raises(PeerRefused):
        server.check(ASKED, headers[HEADER])
    with pytest.raises(PeerRefused):
        client.check_answer(nonce, 200, b"", server.sign_answer(Caller(nonce, FOREIGN), 200, b"")[HEADER])
    with pytest.raises(PeerRefused):
        client.check_answer(nonce, 200, b"", None)


@pytest.mark.parametrize(
    ("seconds", "good"), [(-WINDOW, True), (WINDOW, True), (-WINDOW - 2, False), (WINDOW + 2, False)]
)
def test_clocks_may_differ_by_minutes(seconds: float, good: bool) -> None:
    client, server, wall = pair((OLD,), (OLD,))
    headers, _ = client.sign(ASKED)
    wall.now += seconds
    if good:
        server.check(ASKED, headers[HEADER])
    else:
        with pytest.raises(PeerRefused, match="clocks"):
            server.check(ASKED, headers[HEADER])


def test_a_post_counts_once_as_long_as_it_is_good() -> None:
    client, server, wall = pair((OLD,), (OLD,))
    wall.now += WINDOW - 10
    headers, _ = client.sign(ASKED)  # by a clock that is nearly five minutes ahead
    wall.now -= WINDOW - 10
    server.check(ASKED, headers[HEADER])
    for _ in range(int(2 * WINDOW / 10)):
        wall.now += 10
        with pytest.raises(PeerRefused):
            server.check(ASKED, headers[HEADER])
        server.check(ASKED, client.sign(ASKED)[0][HEADER])


def test_a_get_may_come_twice() -> None:
    client, server, _ = pair((OLD,), (OLD,))
    asked = Request("GET", "h", "/stats")
    headers, _ = client.sign(asked)
    assert server.check(asked, headers[HEADER]) == server.check(asked, headers[HEADER])


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "MAX_REMEMBERED", 10)
    client, server, _ = pair((OLD,), (OLD,))
    for _ in range(100):
        server.check(ASKED, client.sign(ASKED)[0][HEADER])
    assert len(server._seen) + len(server._seen_before) <= 20


def test_without_a_secret_everybody_is_believed() -> None:
    open_to_all = Signer(no_secrets, Wall())
    assert not open_to_all.is_on
    assert open_to_all.sign(ASKED)[0] == {}
    assert open_to_all.check(ASKED, None) == Caller("", None)
    open_to_all.check_answer("", 200, b"", None)


@pytest.mark.parametrize("text", ["", "\n \n", "short", "long enough to be one\nshort"])
def test_a_secret_must_be_long_enough(text: str) -> None:
    with pytest.raises(SettingsError, match="16 characters"):
        parse_secrets(text)


def test_a_secret_that_changes_is_read_again(tmp_path: Path) -> None:
    path, now = tmp_path / "secret", 0.0
    path.write_bytes(OLD + b"\n")
    secrets = SecretFile(path, lambda: now)
    path.write_bytes(NEW + b"\n" + OLD + b"\n")
    assert secrets() == (OLD,)
    now = 11.0
    assert secrets() == (NEW, OLD)
    path.unlink()
    now = 22.0
    assert secrets() == (NEW, OLD)


def test_a_secret_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        SecretFile(tmp_path / "missing", lambda: 0.0)
