"""Touches nothing, and so shows what the generator itself can do."""

from __future__ import annotations

from dataclasses import replace

from async_loader.load.workload import Workload


def build() -> Workload:
    """Return the workload."""
    workload = Workload("noop")

    @workload.operation("noop", kind="read")
    async def noop() -> None:
        pass

    @noop.sync
    def noop_sync() -> None:
        pass

    # No user code: nothing of one can reach the next.
    workload.operations["noop"] = replace(workload.operations["noop"], isolated=False)
    return workload
