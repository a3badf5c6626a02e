"""The store against a model of an API server whose messages come late, twice, and out of order."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelswarm.api.meta import JsonObject
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import BACKENDRUNTIME, DEPLOYMENT, P2PTASK
from modelswarm.kube.port import Listing
from modelswarm.kube.store import TOMBSTONE_SECONDS, Store


def task(name: str, version: int | str, *, namespace: str = "ns", **extra: Any) -> JsonObject:
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version)},
        **extra,
    }


def versions(store: Store) -> dict[str, str]:
    found = {}
    for obj in store.list(P2PTASK):
        metadata = obj["metadata"]
        assert isinstance(metadata, dict)
        found[str(metadata["name"])] = str(metadata["resourceVersion"])
    return found


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_versions_are_compared_as_numbers() -> None:
    store = Store()
    assert store.put(P2PTASK, task("a", 9))
    assert store.put(P2PTASK, task("a", 10))
    assert not store.put(P2PTASK, task("a", 9))
    assert not store.put(P2PTASK, task("a", 10))
    assert versions(store) == {"a": "10"}


def test_versions_that_are_no_numbers_are_believed_when_they_differ() -> None:
    store = Store()
    assert store.put(P2PTASK, task("a", "x"))
    assert not store.put(P2PTASK, task("a", "x"))
    assert store.put(P2PTASK, task("a", "w"))
    assert store.remove(P2PTASK, task("a", "v"))
    assert versions(store) == {}


def test_managed_fields_and_last_applied_are_not_kept_and_the_given_object_stays_whole() -> None:
    store = Store()
    obj = task("a", 1)
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    metadata["managedFields"] = [{"manager": "x"}]
    metadata["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
    store.put(P2PTASK, obj)
    assert "managedFields" in metadata
    found = store.get(P2PTASK, "a", "ns")
    assert found is not None
    assert found["metadata"] == {
        "name": "a",
        "namespace": "ns",
        "resourceVersion": "1",
        "annotations": {"mine": "1"},
    }


def test_what_is_given_out_is_a_copy() -> None:
    store = Store()
    store.put(P2PTASK, task("a", 1, spec={"x": 1}))
    first = store.get(P2PTASK, "a", "ns")
    assert first is not None
    first["spec"] = None
    assert store.get(P2PTASK, "a", "ns") == task("a", 1, spec={"x": 1})


def test_cluster_scoped_objects_and_kinds_are_kept_apart() -> None:
    store = Store()
    store.put(BACKENDRUNTIME, {"metadata": {"name": "a", "resourceVersion": "1"}})
    assert store.get(BACKENDRUNTIME, "a") is not None
    assert store.get(P2PTASK, "a") is None
    assert store.get(DEPLOYMENT, "a", "ns") is None


@pytest.mark.parametrize(
    ("late", "there"),
    [
        pytest.param(5, False, id="the version that was deleted"),
        pytest.param(8, False, id="the version of the deletion itself"),
        pytest.param(9, True, id="a new object of the same name"),
    ],
)
def test_a_deleted_object_is_not_brought_back_by_something_late(late: int, there: bool) -> None:
    store = Store()
    store.put(P2PTASK, task("a", 5))
    assert store.remove(P2PTASK, task("a", 8))
    assert store.put(P2PTASK, task("a", late)) is there
    assert (store.get(P2PTASK, "a", "ns") is not None) is there


def test_a_late_deletion_does_not_remove_the_successor() -> None:
    store = Store()
    store.put(P2PTASK, task("a", 9))
    assert not store.remove(P2PTASK, task("a", 8))
    assert not store.remove(P2PTASK, Key("ns", "a"), "8")
    assert store.remove(P2PTASK, Key("ns", "a"))
    assert not store.put(P2PTASK, task("a", 9))


def test_tombstones_are_forgotten_in_time() -> None:
    clock = Clock()
    store = Store(clock=clock)
    store.remove(P2PTASK, task("a", 8))
    clock.now = TOMBSTONE_SECONDS + 1
    store.remove(P2PTASK, task("b", 9))
    assert store.put(P2PTASK, task("a", 5))
    assert not store.put(P2PTASK, task("b", 5))


def test_a_list_tells_what_came_what_changed_and_what_went() -> None:
    store = Store()
    for name in ("same", "changed", "gone"):
        store.put(P2PTASK, task(name, 1))
    store.put(P2PTASK, task("after", 30))
    listing = Listing([task("same", 1), task("changed", 12), task("new", 13)], "20")
    assert store.replace_all(P2PTASK, listing) == [Key("ns", "changed"), Key("ns", "gone"), Key("ns", "new")]
    assert versions(store) == {"same": "1", "changed": "12", "new": "13", "after": "30"}
    assert not store.put(P2PTASK, task("gone", 1))
    assert not store.put(P2PTASK, task("never-heard-of", 15)), "the list at 20 would have had it"


def test_a_list_without_a_version_drops_nothing_that_is_newer_than_all_of_it() -> None:
    store = Store()
    store.put(P2PTASK, task("old", 3))
    store.put(P2PTASK, task("new", 9))
    assert store.replace_all(P2PTASK, [task("a", 5)]) == [Key("ns", "a"), Key("ns", "old")]
    assert versions(store) == {"a": "5", "new": "9"}


def test_a_list_from_a_restored_backup_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.index(P2PTASK, "all", lambda obj: ["x"])
    store.replace_all(P2PTASK, Listing([task("a", 90), task("b", 91)], "100"))
    store.replace_all(P2PTASK, Listing([task("a", 40)], "50"))
    assert versions(store) == {"a": "40"}
    assert store.keys(P2PTASK, index=("all", "x")) == [Key("ns", "a")]
    assert store.put(P2PTASK, task("a", 51))
    assert "went back" in caplog.text


def test_indexes_follow_every_change_and_may_be_added_late() -> None:
    store = Store()
    store.put(P2PTASK, task("a", 1, owners=["x", "y"]))

    def owners(obj: JsonObject) -> list[str]:
        found = obj.get("owners")
        return [str(owner) for owner in found] if isinstance(found, list) else []

    store.index(P2PTASK, "owner", owners)
    store.put(P2PTASK, task("b", 2, owners=["x", "x"]))
    store.put(P2PTASK, task("c", 3, namespace="other", owners=["x"]))
    assert store.keys(P2PTASK, index=("owner", "x")) == [Key("ns", "a"), Key("ns", "b"), Key("other", "c")]
    assert store.keys(P2PTASK, index=("owner", "x"), namespace="ns") == [Key("ns", "a"), Key("ns", "b")]
    assert store.tally(P2PTASK, "owner") == {"x": 3, "y": 1}
    store.put(P2PTASK, task("a", 4, owners=["z"]))
    store.remove(P2PTASK, task("c", 5, namespace="other"))
    assert store.tally(P2PTASK, "owner") == {"x": 1, "z": 1}
    assert store.list(P2PTASK, index=("owner", "nobody")) == []
    with pytest.raises(KeyError, match="no index 'colour'"):
        store.list(P2PTASK, index=("colour", "red"))


NAMES = st.sampled_from("abcd")


class Deliveries(RuleBasedStateMachine):
    """The server's history on one side; on the other the store, to which any part of it is told in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(clock=lambda: 0.0)
        self.version = 100
        self.live: dict[str, int] = {}
        self.history: list[tuple[str, int, bool]] = []  # name, version, whether that version is the deletion
        self.snapshots: list[tuple[int, dict[str, int]]] = [(100, {})]
        self.listed = 0
        self.told: dict[str, tuple[int, bool]] = {}  # the newest that the store was told: version, deleted

    def _tell(self, name: str, version: int, deleted: bool) -> None:
        if version > max(self.told.get(name, (0, False))[0], 0):
            self.told[name] = (version, deleted)

    @initialize()
    def index(self) -> None:
        self.store.index(P2PTASK, "parity", lambda obj: [str(_version_of(obj) % 2)])

    @rule(name=NAMES)
    def the_server_writes(self, name: str) -> None:
        self.version += 1
        self.live[name] = self.version
        self._record(name, deleted=False)

    @rule(name=NAMES)
    def the_server_deletes(self, name: str) -> None:
        if self.live.pop(name, None) is not None:
            self.version += 1
            self._record(name, deleted=True)

    def _record(self, name: str, *, deleted: bool) -> None:
        self.history.append((name, self.version, deleted))
        self.snapshots.append((self.version, dict(self.live)))

    @rule(data=st.data())
    def a_watch_event_or_an_answer_arrives(self, data: st.DataObject) -> None:
        if not self.history:
            return
        name, version, deleted = data.draw(st.sampled_from(self.history))
        stale = version <= self.told.get(name, (self.listed, True))[0]
        if deleted:
            self.store.remove(P2PTASK, task(name, version))
        else:
            assert self.store.put(P2PTASK, task(name, version)) is not stale
        if not stale:
            self._tell(name, version, deleted)

    @rule(data=st.data())
    def a_list_arrives(self, data: st.DataObject) -> None:
        """Lists come in order, but any time after they were taken."""
        version, live = data.draw(st.sampled_from([old for old in self.snapshots if old[0] >= self.listed]))
        before = {key.name for key in self.store.keys(P2PTASK)}
        changed = self.store.replace_all(P2PTASK, Listing([task(*item) for item in live.items()], str(version)))
        after = {key.name for key in self.store.keys(P2PTASK)}
        assert {key.name for key in changed} >= before ^ after
        for name, written in live.items():
            if written > self.told.get(name, (self.listed, True))[0]:
                self._tell(name, written, False)
        for name in "abcd":
            if name not in live and name in self.told:
                self._tell(name, version, True)
        self.listed = max(self.listed, version)

    @invariant()
    def the_store_knows_the_newest_it_was_told(self) -> None:
        expected = {name: str(version) for name, (version, deleted) in self.told.items() if not deleted}
        assert versions(self.store) == expected

    @invariant()
    def the_index_agrees_with_the_objects(self) -> None:
        for parity in (0, 1):
            expected = sorted(name for name, version in versions(self.store).items() if int(version) % 2 == parity)
            assert [key.name for key in self.store.keys(P2PTASK, index=("parity", str(parity)))] == expected

    @invariant()
    def a_full_list_now_would_bring_it_up_to_date(self) -> None:
        other = Store(clock=lambda: 0.0)
        other.replace_all(P2PTASK, Listing([task(*item) for item in self.live.items()], str(self.version)))
        assert versions(other) == {name: str(version) for name, version in self.live.items()}


def _version_of(obj: JsonObject) -> int:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return int(str(metadata["resourceVersion"]))


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
