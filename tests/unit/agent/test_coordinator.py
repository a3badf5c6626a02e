"""The coordinator's rules, one by one. Time is an argument."""

import pytest

from modelswarm.agent import bits
from modelswarm.agent.allotment import GATHER_SECONDS
from modelswarm.agent.asking import ASK_SECONDS
from modelswarm.agent.coordinator import (
    SETTLE_SECONDS,
    SILENT_SECONDS,
    STUCK_SECONDS,
    Coordinator,
)
from modelswarm.agent.members import GONE_SECONDS
from modelswarm.agent.messages import Answer, BadFile, Busy, Failure, Publication
from modelswarm.agent.segments import plan
from modelswarm.agent.yielding import BUSY_SECONDS
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from tests.unit.agent.coordination import MIB, hashes_of, manifest, report

EPOCH = 7
CONTENT = manifest(a_bin=8 * MIB, b_bin=8 * MIB, c_json=100)
SEGMENTS = plan(CONTENT, 2 * MIB)
SIZES = [file.size for file in sorted(CONTENT.files)]
A, B = tuple(range(1, 5)), tuple(range(5, 9))
"""The segments of the two large files; 0 is the bundle."""
ALL = bits.full(len(SEGMENTS))


def coordinator(
    content: Manifest = CONTENT, *, epoch: int = EPOCH, origin_nodes: int | None = None, own: str = "",
    successor: bool = False,
) -> Coordinator:  # fmt: skip
    return Coordinator(
        content,
        plan(content, 2 * MIB),
        segment_bytes=2 * MIB,
        epoch=epoch,
        now=0.0,
        origin_nodes=origin_nodes,
        own=own,
        successor=successor,
    )


def published(node: str, *segments: int, salt: str = "") -> tuple[Publication, ...]:
    return tuple(
        Publication(segments=(index,), hashes=hashes_of(SEGMENTS[index], SIZES, salt=salt), publisher=node)
        for index in segments
    )


def segments_in(answer: Answer) -> list[int]:
    return sorted(segment for publication in answer.published for segment in publication.segments)


def test_each_segment_is_with_one_node() -> None:
    desk = coordinator()
    given = [desk.report(report(node, wants=1), 0.0).assign for node in ("a", "b", "c")]
    assert given == [(0,), (1,), (2,)]
    assert desk.readers == ("a", "b", "c")


def test_a_node_gets_what_it_wants_and_no_more() -> None:
    desk = coordinator()
    # Not all of it while others may still come: what is in flight on a node is lost with it.
    assert desk.report(report("a", wants=3), 0.0).assign == (0, 1)
    working = {0: 0, 1: 0}
    assert desk.report(report("a", wants=3, epoch=EPOCH, working=working), GATHER_SECONDS - 0.1).assign == (0, 1)
    for now in (GATHER_SECONDS, GATHER_SECONDS + 1):
        again = desk.report(report("a", wants=3, epoch=EPOCH, working=working), now)
        assert again.assign == (0, 1, 2)
        working[2] = 0
    assert desk.report(report("b", wants=0), 0.0).assign == ()


def test_an_answer_that_got_lost_comes_again() -> None:
    desk = coordinator()
    assert desk.report(report("a"), 0.0) == desk.report(report("a"), 0.0)


def test_a_report_that_a_later_one_has_overtaken_is_old() -> None:
    """On several connections the later may be here first: what it says stays, or a segment would be read again."""
    desk = coordinator()
    assert desk.report(report("a", life=5, number=1, wants=1), 0.0).assign == (0,)
    done = report("a", life=5, number=3, epoch=EPOCH, have=(0,), published=published("a", 0), wants=0)
    desk.report(done, 1.0)
    desk.report(report("a", life=5, number=2, epoch=EPOCH, working={0: 10}, wants=1), 1.1)
    assert 0 not in desk.report(report("b", wants=8), 1.2).assign
    assert desk.progress()[0] == 1
    # A new life counts from its beginning, and has lost what was there.
    assert desk.report(report("a", life=2, number=1, wants=1), 2.0).assign == (0,)
    assert desk.progress()[0] == 0


def test_towards_the_end_nobody_gets_more_than_a_share() -> None:
    desk = coordinator(successor=True)
    for node in "abc":
        desk.report(report(node, wants=8), 0.0)
    got = [len(desk.report(report(node, epoch=EPOCH, wants=8), SETTLE_SECONDS).assign) for node in "abc"]
    assert got == [1, 1, 1]


def test_what_is_published_is_told_once_with_publisher_and_hashes() -> None:
    desk = coordinator()
    desk.report(report("a", wants=2), 0.0)
    desk.report(report("a", epoch=EPOCH, have=(0, 1), published=published("a", 0, 1), wants=2), 1.0)
    first = desk.report(report("b"), 1.0)
    assert {(each.segments, each.publisher, each.hashes) for each in first.published} == {
        ((0,), "a", b""),
        ((1,), "a", hashes_of(SEGMENTS[1], SIZES)),
    }
    assert first.holders == {0: ("http://a.example:8081",)}
    assert [peer.node for peer in first.peers] == ["a"]
    second = desk.report(report("b", epoch=EPOCH, cursor=first.cursor), 2.0)
    assert second.published == ()
    assert second.holders == {}
    assert not desk.has_news(second.cursor)


def test_a_window_of_several_segments_stays_one() -> None:
    desk = coordinator()
    desk.report(report("a", wants=8), 0.0)
    both = hashes_of(SEGMENTS[1], SIZES) + hashes_of(SEGMENTS[2], SIZES)
    window = Publication(segments=(1, 2), hashes=both, publisher="a")
    desk.report(report("a", epoch=EPOCH, have=(1, 2), published=(window,)), 1.0)
    assert desk.report(report("b"), 1.0).published == (window.model_copy(update={"window": True}),)


def half_published() -> Coordinator:
    """File a is in windows of one segment each, and much is left."""
    desk = coordinator(manifest(a_bin=8 * MIB, b_bin=200 * MIB, c_json=100))
    desk.report(report("x", published=tuple(large("x", segment) for segment in range(1, 41)), wants=0), 0.0)
    return desk


def large(node: str, segment: int, salt: str = "") -> Publication:
    """Of the content of ``half_published``."""
    content = manifest(a_bin=8 * MIB, b_bin=200 * MIB, c_json=100)
    sizes = [file.size for file in sorted(content.files)]
    hashes = hashes_of(plan(content, 2 * MIB)[segment], sizes, salt=salt)
    return Publication(segments=(segment,), hashes=hashes, publisher=node)


def test_what_several_nodes_publish_becomes_one_window() -> None:
    desk = half_published()
    cursor = desk.report(report("late"), 1.0).cursor
    for number, node in enumerate("abc"):
        desk.report(report(node, published=(large(node, 60 + number),), wants=0), 5.0)
    here = report("late", epoch=EPOCH, cursor=desk.report(report("late", epoch=EPOCH, cursor=cursor), 5.0).cursor)
    assert desk.report(here, 6.0).published == (), "it is gathered with what may come"
    assert not desk.has_news(here.cursor)
    desk.tick(7.0)
    assert desk.has_news(here.cursor)
    [window] = desk.report(here, 7.0).published
    assert (window.segments, window.publishers, window.window) == ((60, 61, 62), ("a", "b", "c"), True)
    assert window.hashes == b"".join(large("any", segment).hashes for segment in window.segments)


def test_windows_of_a_predecessor_stay_what_they_are() -> None:
    window = Publication(
        segments=(1, 2, 4),
        hashes=b"".join(hashes_of(SEGMENTS[segment], SIZES) for segment in (1, 2, 4)),
        publisher="a",
        publishers=("a", "b", "a"),
        window=True,
    )
    desk = coordinator(successor=True)
    # By itself it would be gathered; with the window it is part of that.
    desk.report(report("b", have=(3, 5, 6, 7, 8), published=published("b", 3, 5, 6, 7, 8)), 0.0)
    desk.report(report("b", have=(2,), published=(window,)), 0.0)
    told = desk.report(report("c"), 0.0).published
    assert window in told
    assert sorted(segment for each in told for segment in each.segments) == list(range(1, 9))


def test_other_bytes_of_a_segment_are_a_window_of_their_own() -> None:
    desk = coordinator()
    for node in ("liar", "a", "b"):
        desk.report(report(node, wants=0), 0.0)
    both = hashes_of(SEGMENTS[1], SIZES, salt="wrong") + hashes_of(SEGMENTS[2], SIZES)
    desk.report(report("liar", published=(Publication(segments=(1, 2), hashes=both, publisher="liar"),), wants=0), 0.0)
    rest = tuple(segment for segment in (*A, *B) if segment > 2)
    desk.report(report("a", have=ALL, published=published("a", *rest), wants=0), 0.0)
    cursor = desk.report(report("a", epoch=EPOCH, have=ALL, wants=0), 0.0).cursor
    answer = desk.report(report("a", epoch=EPOCH, cursor=cursor, have=ALL, bad=(BadFile(file=0),), wants=8), 0.0)
    assert 1 in answer.reread
    desk.report(report("a", epoch=EPOCH, cursor=cursor, have=ALL, published=published("a", 1), wants=8), 0.0)
    told = {each.segments: each for each in desk.report(report("late"), 0.0).published}
    assert told[1,].hashes == hashes_of(SEGMENTS[1], SIZES)
    assert told[2,].publisher == "liar"
    news = desk.report(report("a", epoch=EPOCH, cursor=cursor, have=ALL, wants=0), 0.0).published
    assert [each.segments for each in news] == [(1,)]


def test_the_first_publication_wins_and_a_late_one_is_ignored() -> None:
    desk = coordinator()
    desk.report(report("a", wants=2), 0.0)
    desk.tick(SILENT_SECONDS + 1)
    now = SILENT_SECONDS + 2
    assert desk.report(report("b", wants=2), now).assign == (0, 1)
    desk.report(report("b", epoch=EPOCH, have=(0, 1), published=published("b", 0, 1), wants=0), now)
    late = desk.report(report("a", working={0: 5, 1: 5}, have=(1,), published=published("a", 1, salt="x")), now)
    assert late.revoke == (0, 1)
    assert [each.publisher for each in late.published] == ["b", "b"]
    assert desk.shunned == set()


def test_part_of_a_window_that_somebody_has_published_meanwhile_is_left_out() -> None:
    desk = coordinator()
    desk.report(report("a", wants=8), 0.0)
    desk.report(report("b", have=(2,), published=published("b", 2)), 0.0)
    both = hashes_of(SEGMENTS[1], SIZES) + hashes_of(SEGMENTS[2], SIZES)
    desk.report(report("a", epoch=EPOCH, published=(Publication(segments=(1, 2), hashes=both, publisher="a"),)), 1.0)
    told = desk.report(report("c"), 1.0).published
    assert {(each.segments, each.publisher) for each in told} == {((2,), "b"), ((1,), "a")}
    assert {each.hashes for each in told} == {hashes_of(SEGMENTS[index], SIZES) for index in (1, 2)}


@pytest.mark.parametrize(
    "publication",
    [
        pytest.param(Publication(segments=(1,), hashes=b"x" * 20, publisher="a"), id="too few hashes"),
        pytest.param(Publication(segments=(0,), hashes=b"x" * 20, publisher="a"), id="a bundle with hashes"),
        pytest.param(Publication(segments=(0, 1), hashes=b"x" * 40, publisher="a"), id="a bundle and a range"),
        pytest.param(Publication(segments=(4, 5), hashes=b"x" * 80, publisher="a"), id="two files"),
        pytest.param(Publication(segments=(2, 1), hashes=b"x" * 80, publisher="a"), id="not in order"),
        pytest.param(Publication(segments=(99,), hashes=b"x" * 40, publisher="a"), id="no such segment"),
    ],
)
def test_a_publication_that_cannot_be_is_ignored(publication: Publication) -> None:
    desk = coordinator()
    desk.report(report("a", published=(publication,)), 0.0)
    assert desk.report(report("b"), 0.0).published == ()


def test_what_a_silent_node_held_goes_to_others_and_not_before() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    desk.report(report("b", wants=0), 0.0)
    desk.tick(SILENT_SECONDS - 1)
    assert desk.report(report("b", wants=1), SILENT_SECONDS - 1).assign == (1,)
    desk.tick(SILENT_SECONDS + 1)
    assert 0 in desk.report(report("b", epoch=EPOCH, working={1: 1}), SILENT_SECONDS + 1).assign


def test_a_node_that_comes_back_goes_on_if_nobody_else_began() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    desk.tick(SILENT_SECONDS + 1)
    assert desk.report(report("a", epoch=EPOCH, wants=1, working={0: 50}), SILENT_SECONDS + 2).assign == (0,)


def test_what_does_not_move_for_a_minute_goes_to_others() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    for second in range(0, int(STUCK_SECONDS) + 2, 5):
        desk.report(report("a", epoch=EPOCH, wants=1, working={0: min(second, 10)}), float(second))
        desk.tick(float(second))
    assert desk.report(report("a", epoch=EPOCH, wants=1, working={0: 10}), STUCK_SECONDS).assign == (0,)
    desk.tick(STUCK_SECONDS + 11)
    late = desk.report(report("a", epoch=EPOCH, wants=1, working={0: 10}), STUCK_SECONDS + 11)
    assert late.assign == ()
    assert late.revoke == (0,)
    assert desk.report(report("b", wants=1), STUCK_SECONDS + 11).assign == (0,)


@pytest.mark.parametrize("limit", [1, 2])
def test_not_more_nodes_than_allowed_read_the_origin(limit: int) -> None:
    desk = coordinator(origin_nodes=limit)
    nodes = ["a", "b", "c"]
    got = {node: desk.report(report(node, wants=1), 0.0).assign for node in nodes}
    assert sum(bool(assigned) for assigned in got.values()) == limit
    for index in range(3):
        for node in nodes:
            if node in desk.readers:
                held = desk.report(report(node, epoch=EPOCH, wants=1), float(index)).assign
                desk.report(
                    report(node, epoch=EPOCH, have=held, published=published(node, *held), wants=1), float(index)
                )
        assert desk.readers == tuple(nodes[:limit])


def test_the_coordinators_own_node_is_the_one_reader() -> None:
    desk = coordinator(origin_nodes=1, own="b")
    desk.report(report("b", wants=0), 0.0)
    assert desk.report(report("b", wants=1), 0.0).assign == (0,)
    assert desk.report(report("a", wants=1), 0.0).assign == ()


BROKEN = Failure(reason="SourceUnavailable", message="502")


def test_another_node_reads_while_the_coordinators_own_cannot_and_keeps_the_place() -> None:
    desk = coordinator(origin_nodes=1, own="own")
    desk.report(report("own", wants=1), 0.0)
    assert desk.report(report("a", wants=1), 0.0).assign == ()
    assert desk.report(report("own", epoch=EPOCH, wants=1, failed={0: BROKEN}), 1.0).assign == ()
    assert desk.report(report("a", epoch=EPOCH, wants=1), 1.1).assign == (0,)
    assert desk.readers == ("a",)
    for now in (2.5, 5.0):
        assert desk.report(report("own", epoch=EPOCH, wants=1), now).assign == ()
        assert desk.report(report("a", epoch=EPOCH, wants=1, working={0: int(now)}), now).assign == (0,)
        assert desk.readers == ("a",)


def test_what_the_one_reader_still_reads_when_a_segment_fails_keeps_others_out() -> None:
    desk = coordinator(origin_nodes=1, own="own")
    assert desk.report(report("own", wants=2), 0.0).assign == (0, 1)
    still = report("own", epoch=EPOCH, wants=2, working={1: 10}, failed={0: BROKEN})
    assert desk.report(still, 1.0).assign == (1,)
    assert desk.report(report("a", wants=1), 1.1).assign == ()
    assert desk.readers == ("own",)


def test_an_own_node_that_cannot_read_takes_no_place_from_the_others() -> None:
    desk = coordinator(origin_nodes=2, own="own")
    desk.report(report("own", wants=1), 0.0)
    desk.report(report("own", epoch=EPOCH, wants=1, failed={0: BROKEN}), 0.0)
    got = [desk.report(report(node, wants=1), 0.1).assign for node in "abc"]
    assert got == [(0,), (1,), ()]
    desk.tick(2.0)
    assert desk.report(report("own", epoch=EPOCH, wants=1), 2.0).assign == (), "both places are taken"
    desk.report(report("a", epoch=EPOCH, wants=0, have=(0,), published=published("a", 0)), 2.1)
    assert desk.report(report("c", epoch=EPOCH, wants=1), 2.2).assign == (), "the next one is kept for it"
    assert desk.report(report("own", epoch=EPOCH, wants=1), 2.3).assign == (2,)


def test_another_node_reads_when_the_one_reader_dies() -> None:
    desk = coordinator(origin_nodes=1)
    desk.report(report("a", wants=1), 0.0)
    assert desk.report(report("b", wants=1), 0.0).assign == ()
    desk.tick(SILENT_SECONDS + 1)
    assert desk.report(report("b", epoch=EPOCH, wants=1), SILENT_SECONDS + 1).assign == (0,)
    assert desk.readers == ("b",)


def test_rate_limits_pause_everybody() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    limited = Failure(reason="RateLimited", retry_after=30)
    assert desk.report(report("a", epoch=EPOCH, wants=1, failed={0: limited}), 1.0).pause == 30
    other = desk.report(report("b", wants=1), 2.0)
    assert other.assign == ()
    assert other.pause == 29
    assert desk.report(report("b", epoch=EPOCH, wants=1), 31.5).assign == (0,)


def test_a_passing_failure_gives_the_segment_to_somebody_else() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    answer = desk.report(report("a", epoch=EPOCH, wants=1, failed={0: BROKEN}), 1.0)
    assert answer.assign == ()
    assert answer.failure == BROKEN
    assert desk.report(report("b", wants=1), 1.0).assign == (0,)
    assert desk.failure is None


def test_what_the_origin_refuses_to_one_node_another_one_tries() -> None:
    desk = coordinator()
    denied = Failure(reason="AccessDenied", message="gated", retryable=False)
    for node in "ab":
        desk.report(report(node, wants=1), 0.0)
    desk.report(report("a", epoch=EPOCH, wants=1, failed={0: denied}), 1.0)
    desk.tick(1.0)
    assert desk.failure is None
    assert desk.report(report("a", epoch=EPOCH, wants=1), 2.0).assign == ()
    desk.report(report("b", epoch=EPOCH, wants=1, failed={1: denied}), 2.0)
    desk.tick(2.0)
    assert desk.failure == denied
    assert desk.report(report("c", wants=1), 3.0).failure == denied
    assert desk.report(report("c", wants=1), 3.0).assign == ()


def test_a_file_that_a_smaller_content_fills_is_left_to_it() -> None:
    desk = coordinator()
    busy = (Busy(file=0, content="0" * 64), Busy(file=1, content="f" * 64))
    desk.report(report("x", wants=0, busy=busy), 0.0)
    held = desk.report(report("a", wants=32), 0.0).assign
    assert not set(held) & set(A)
    for _ in range(10):
        held = desk.report(report("a", epoch=EPOCH, wants=32, working=dict.fromkeys(held, 1)), GATHER_SECONDS).assign
    assert set(held) == {0, *B}
    desk.report(report("x", wants=0, have=A, busy=()), 4.0)
    desk.tick(4.0)
    assert set(desk.report(report("a", epoch=EPOCH, wants=32, working=dict.fromkeys(held, 1)), 5.0).assign) == {0, *B}


def test_a_file_that_another_content_does_not_get_on_with_is_fetched_after_all() -> None:
    desk = coordinator()
    desk.report(report("x", wants=0, busy=(Busy(file=0, content="0" * 64),)), 0.0)
    desk.report(report("y", have=(0, *B), published=published("y", *B)), 0.0)
    assert desk.report(report("a", wants=1, have=(0, *B)), 1.0).assign == ()
    desk.tick(BUSY_SECONDS + 1)
    assert desk.report(report("a", wants=1, have=(0, *B), epoch=EPOCH), BUSY_SECONDS + 1).assign == (1,)


def test_a_successor_listens_first_and_believes_what_members_have() -> None:
    desk = coordinator(successor=True)
    assert desk.report(report("a", wants=1), 0.1).assign == ()
    told = desk.report(report("b", epoch=3, cursor=99, wants=2, have=(0, 1), working={2: 700}), 0.5)
    assert told.assign == (2,)
    assert told.asked == (1,)
    assert told.revoke == ()
    assert desk.report(report("a", epoch=EPOCH, wants=1), SETTLE_SECONDS - 0.1).assign == ()
    assert desk.report(report("a", epoch=EPOCH, wants=1), SETTLE_SECONDS).assign == (3,)
    desk.report(report("b", epoch=EPOCH, have=(0, 1), working={2: 800}, published=published("z", 1)), 6.0)
    assert segments_in(desk.report(report("c"), 6.0)) == [0, 1]


def test_only_one_member_is_asked_for_a_publication_and_then_another() -> None:
    desk = coordinator()
    assert desk.report(report("a", have=(1, 2), wants=0), 0.0).asked == (1, 2)
    assert desk.report(report("b", have=(1, 2, 3), wants=0), 0.0).asked == (3,)
    assert desk.report(report("a", epoch=EPOCH, have=(1, 2), wants=0), 20.0).asked == (1, 2)
    desk.tick(ASK_SECONDS + 1)
    assert desk.report(report("b", epoch=EPOCH, have=(1, 2, 3), wants=0), 40.0).asked == (1, 2, 3)


def test_bytes_that_only_a_dead_node_had_are_fetched_again() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    desk.report(report("a", epoch=EPOCH, have=(0,), published=published("a", 0), wants=0), 1.0)
    assert desk.report(report("b", wants=1), 2.0).assign == (1,)
    now = 1.0 + GONE_SECONDS + 1
    desk.report(report("b", epoch=EPOCH, wants=1, working={1: 1}), now)
    desk.tick(now)
    answer = desk.report(report("b", epoch=EPOCH, wants=2, working={1: 2}), now)
    assert answer.assign == (0, 1)
    assert [(peer.node, peer.gone) for peer in answer.peers if peer.node == "a"] == [("a", True)]


def test_it_is_open_until_every_live_member_is_complete() -> None:
    desk = coordinator()
    assert not desk.is_complete
    assert desk.report(report("a", complete=True), 0.0).open is False
    assert desk.report(report("b"), 0.0).open is True
    desk.report(report("a", epoch=EPOCH, complete=True), GONE_SECONDS)
    desk.tick(GONE_SECONDS + 1)
    assert desk.report(report("a", epoch=EPOCH, complete=True), GONE_SECONDS + 1).open is False


def test_members_that_are_kept_stay_until_they_are_not_kept_any_more() -> None:
    desk = coordinator()
    desk.keeps_members = True
    assert desk.report(report("a", complete=True), 0.0).open is True
    assert desk.is_complete
    assert not desk.has_orders("a", 0.1)
    desk.keeps_members = False
    assert desk.has_orders("a", 0.2)
    assert desk.report(report("a", epoch=EPOCH, complete=True), 0.3).open is False


def test_the_first_readers_digest_holds() -> None:
    files = (ManifestFile("a", 3 * MIB, None, "v1"), ManifestFile("b", 3 * MIB, "sha256:" + "0" * 64))
    desk = coordinator(Manifest(Origin(OriginKind.S3, "bucket"), None, files))
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    desk.report(report("a", digests={0: first, 1: first}), 0.0)
    assert desk.report(report("b", digests={0: second}), 0.0).digests == {0: first}


def fill(desk: Coordinator, now: float, *nodes: str, salt: str = "") -> None:
    """Let the nodes read everything; the last of them reads something else in file a if there is a salt."""
    held: dict[str, tuple[int, ...]] = {node: desk.report(report(node, wants=1), now).assign for node in nodes}
    have: dict[str, int] = dict.fromkeys(nodes, 0)
    while any(held.values()):
        for node in nodes:
            wrong = salt if node == nodes[-1] else ""
            news = tuple(
                each for segment in held[node] for each in published(node, segment, salt=wrong if segment in A else "")
            )
            have[node] |= bits.mask_of(held[node])
            answer = desk.report(report(node, epoch=EPOCH, wants=1, have=have[node], published=news), now)
            held[node] = answer.assign


def test_a_liar_is_found_shunned_and_its_bytes_replaced() -> None:
    desk = coordinator()
    fill(desk, 0.0, "a", "b", "liar", salt="wrong")
    lies = [segment for segment in A if desk._publications.publisher(segment) == "liar"]
    assert lies
    cursor = desk.report(report("a", epoch=EPOCH, have=ALL), 1.0).cursor
    bad = (BadFile(file=0, publishers=("a", "b", "liar")),)
    answer = desk.report(report("a", epoch=EPOCH, cursor=cursor, have=ALL, bad=bad, wants=8), 1.0)
    assert answer.reread == answer.assign != ()
    for _ in range(20):
        for node in ("a", "b"):
            held = answer.assign
            answer = desk.report(
                report(node, epoch=EPOCH, cursor=cursor, have=ALL, working=dict.fromkeys(held, 0), wants=8), 1.0
            )
            news = published(node, *answer.assign)
            answer = desk.report(report(node, epoch=EPOCH, cursor=cursor, have=ALL, published=news, wants=8), 1.0)
    assert desk.shunned == {"liar"}
    assert all(desk._publications.hashes(segment) == hashes_of(SEGMENTS[segment], SIZES) for segment in A)
    told = desk.report(report("b", epoch=EPOCH, cursor=cursor, have=ALL, wants=0), 2.0)
    assert told.shunned == ("liar",)
    assert set(lies) <= set(segments_in(told))
    assert desk.report(report("liar", epoch=EPOCH, have=ALL, wants=8), 2.0).assign == ()
    # What b says it has from before does not count, until it knows of the new hashes.
    assert all(desk._roster.count(segment) == 1 for segment in lies)
    desk.report(report("b", epoch=EPOCH, cursor=told.cursor, have=ALL, wants=0), 3.0)
    assert all(desk._roster.count(segment) == 2 for segment in lies)


def test_an_origin_that_delivers_the_same_wrong_bytes_twice_ends_it() -> None:
    desk = coordinator()
    fill(desk, 0.0, "a", "b")
    for _ in range(2):
        for node in "ab":
            cursor = desk.report(report(node, epoch=EPOCH, have=ALL), 1.0).cursor
            desk.report(report(node, epoch=EPOCH, cursor=cursor, have=ALL, bad=(BadFile(file=0),)), 1.0)
        if desk.failure is None:
            fill_again(desk)
    assert desk.failure is not None
    assert desk.failure.reason == "DigestMismatch"
    assert not desk.failure.retryable
    assert desk.shunned == set()


def fill_again(desk: Coordinator) -> None:
    for _ in range(20):
        for node in "ab":
            held = desk.report(report(node, epoch=EPOCH, have=ALL, wants=8), 1.0).assign
            desk.report(report(node, epoch=EPOCH, have=ALL, wants=8, published=published(node, *held)), 1.0)


def test_a_large_journal_is_told_in_parts() -> None:
    content = manifest(**{f"f{number:05}": MIB for number in range(6000)})
    desk = coordinator(content)
    segments = plan(content, 2 * MIB)
    desk.report(report("a", complete=True), 0.0)
    seen: set[int] = set()
    cursor, rounds, more = 0, 0, True
    while more:
        answer = desk.report(report("b", epoch=EPOCH, cursor=cursor, wants=0), 0.0)
        seen |= answer.holders.keys()
        cursor, more, rounds = answer.cursor, answer.more, rounds + 1
    assert seen == set(range(len(segments)))
    assert rounds > 1
