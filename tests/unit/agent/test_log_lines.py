"""What an agent logs about a content names who wants it, as the operator's lines do."""

import logging
from pathlib import Path

import pytest

from modelswarm.logs import AboutFilter
from tests.unit.agent.company import company_of, hash_of
from tests.unit.agent.store.conftest import MIB, content, noise

pytestmark = pytest.mark.looptime

FILES = {"model.bin": noise("model", 3 * MIB), "config.json": b"{}"}
MODEL = content(FILES)


async def test_lines_about_a_content_name_the_objects_that_want_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(AboutFilter())
    try:
        with caplog.at_level(logging.INFO):
            async with company_of(tmp_path, FILES, MODEL) as company:
                for agent in company.add("a", "b"):
                    await agent.start(MODEL)
                await company.until_ready(MODEL)
    finally:
        caplog.handler.filters.clear()
    ready = [vars(record) for record in caplog.records if "is ready" in record.getMessage()]
    assert len(ready) == 2
    for line in ready:
        assert (line["controller"], line["object"]) == ("p2ptask", f"models/task-{hash_of(MODEL)[:8]}")
        assert (line["model"], line["model_hash"]) == ("org/model", hash_of(MODEL))
    assert len({line["reconcile_id"] for line in ready}) == 2
    # The Lease is held by a task of its own, which the attempt has started.
    leases = [vars(record) for record in caplog.records if "coordinates" in record.getMessage()]
    assert leases
    assert {line["reconcile_id"] for line in leases} <= {line["reconcile_id"] for line in ready}
