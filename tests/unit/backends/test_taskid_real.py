"""Task ids that a running dfdaemon 1.5.10 computed (``tests/dragonfly/vectors.json``), computed again."""

import json
from pathlib import Path

import pytest

from modelswarm.backends.dragonfly.taskid import DEFAULT_FILTERED, url_task_id

VECTORS = json.loads((Path(__file__).parents[2] / "dragonfly" / "vectors.json").read_text())["vectors"]


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in VECTORS])
def test_the_id_is_the_one_that_dfdaemon_computed(vector: dict[str, object]) -> None:
    filtered = vector["filtered_query_params"]
    computed = url_task_id(
        str(vector["url"]),
        tag=str(vector["tag"]),
        application=str(vector["application"]),
        piece_length=vector["piece_length"] if isinstance(vector["piece_length"], int) else None,
        filtered=filtered if isinstance(filtered, list) else DEFAULT_FILTERED,
    )
    assert computed == vector["id"]
