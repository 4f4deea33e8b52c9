"""What each process of a split run did, in rows for any form."""

from __future__ import annotations

from ..results.run import RunResult

HEADINGS = ("process", "operations", "failed", "operations/s", "loop busy", "lag p99 ms", "MiB")
CLOCK = "clock ms"


def headings(result: RunResult) -> tuple[str, ...]:
    """Return what the columns are; other machines' clocks have one where there are any."""
    return (*HEADINGS, CLOCK) if _has_clocks(result) else HEADINGS


def rows(result: RunResult) -> list[tuple[str, ...]]:
    """Return a row for each process, so that a slow one is seen; none for a run of one."""
    found: list[tuple[str, ...]] = []
    for shard in result.shards:
        row = (
            f"{shard.name} {shard.lost}" if shard.lost else shard.name,
            f"{shard.completed:,}",
            f"{shard.failed + shard.indeterminate:,}",
            f"{shard.throughput:,.0f}",
            f"{shard.loop_busy:.0%}",
            f"{shard.loop_lag_ms:,.1f}",
            f"{shard.peak_memory_bytes / 2**20:,.0f}" if shard.peak_memory_bytes else "-",
        )
        found.append((*row, f"{shard.clock_offset_ms:+.1f}") if _has_clocks(result) else row)
    return found


def _has_clocks(result: RunResult) -> bool:
    return any(shard.clock_offset_ms for shard in result.shards)
