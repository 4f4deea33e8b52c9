from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from async_loader import Workload, run
from async_loader.load.instruments.speedscope import speedscope


def test_stacks_share_their_frames_and_weigh_what_they_were_seen() -> None:
    outer, inner = ("checkout", "", 0), ("total", "/shop/orders.py", 7)
    document = json.loads(speedscope(Counter({(outer,): 1, (outer, inner): 3}), "shop"))
    assert document["shared"]["frames"] == [
        {"name": "checkout"},
        {"name": "total", "file": "/shop/orders.py", "line": 7},
    ]
    (profile,) = document["profiles"]
    assert (profile["samples"], profile["weights"]) == ([[0], [0, 1]], [1, 3])
    assert profile["endValue"] == 4


async def test_a_run_writes_what_its_loop_was_seen_at(tmp_path: Path) -> None:
    workload = Workload("shop")

    @workload.operation("count", kind="read")
    async def count() -> None:
        sum(range(3_000_000))

    target = tmp_path / "profile.json"
    await run(workload, ops=10, concurrency=1, profile=target)
    document = json.loads(target.read_text())
    names = {frame["name"] for frame in document["shared"]["frames"]}
    assert "count" in names
    assert document["profiles"][0]["endValue"] > 0
