"""The proposal's end-to-end row on real nodes: three replicas at once, with distribution and without.

The origin's link has a quarter of the speed of the nodes' links, as a link to the world has. Both ways run one after
the other on the same links, from ``kubectl apply`` until all replicas are Ready.
"""

import time

from dev.cluster.addresses import ORIGIN
from dev.netns import MBIT
from tests.e2e.support import Place, Release
from tests.e2e.support.place import size

ORIGIN_RATE = 40 * MBIT
SHARDS, SHARD_BYTES = 4, 12 << 20
REPLICAS = 3


def test_three_replicas_with_distribution_and_without(release: Release, place: Place) -> None:
    cluster = place.cluster
    runtime = place.runtime(cpu="1100m")  # one on each node
    # The images are on the nodes before either begins.
    place.wait_replicas(place.serve("warm", place.repository(), runtime, replicas=REPLICAS), REPLICAS)
    place.remove("warm")
    rates = {ORIGIN: ORIGIN_RATE, **dict.fromkeys(cluster.nodes, 4 * ORIGIN_RATE)}
    rows: dict[str, tuple[float, float]] = {}
    cluster.shape(rates)
    try:
        for name, distribution in (("with", True), ("without", False)):
            release.put(operator__settings__distribution=distribution)
            release.wait()
            repository = place.repository(shards=SHARDS, shard_bytes=SHARD_BYTES)
            started = time.monotonic()
            place.serve(name, repository, runtime, replicas=REPLICAS)
            replicas = place.wait_replicas(name, REPLICAS, 120)
            rows[name] = time.monotonic() - started, place.sent(repository) / size(repository)
            place.check_files(replicas, repository)
            assert {replica.node for replica in replicas} == set(cluster.nodes)
            place.remove(name)
    finally:
        cluster.shape(dict.fromkeys(rates))
        release.put()
        release.wait()
    for name, (seconds, copies) in rows.items():
        print(f"{name:8} {seconds:6.1f} s until all Ready, {copies:.2f} times from the origin")
    assert rows["with"][1] <= 1.05
    assert rows["without"][1] >= REPLICAS * 0.99
    # The one place in which a time is asserted: distribution is there for it, and both ran on the same links.
    assert rows["with"][0] < rows["without"][0]
