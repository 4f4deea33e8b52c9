"""What held a run back, said in a sentence with its figures."""

from __future__ import annotations

from ..results.run import RunResult
from ..results.time_split import PARTS

BUSY = 0.9
# A run of less than this, in seconds, is mostly its own beginning and end.
SHORTEST = 0.5
# A share of all latency that names its owner as the bottleneck.
MOST = 0.5


def bottleneck(result: RunResult) -> str | None:
    """
    Return the sentence that names what limited the run; None where nothing stands out.

    A busy loop comes first: the times in the database then contain the loop's own queue, and
    the database is never blamed for them.
    """
    if result.seconds < SHORTEST:
        return None
    busy = result.process.loop_busy
    if busy > BUSY:
        sentence = _BUSY_SENTENCES.get(result.mode, _BUSY_LOOP).format(busy=f"{busy:.0%}")
        if result.shards:
            return sentence.replace("This process's event loop", "A process's event loop")
        return sentence
    shares = time_shares(result)
    size = result.pool.size if result.pool else 0
    if shares.get("pool_wait", 0) > MOST:
        return (
            f"The pool of {size} was the bottleneck: operations waited for a connection for "
            f"{shares['pool_wait']:.0%} of their time."
        )
    if shares.get("database", 0) > MOST:
        return (
            f"The database was the bottleneck: operations spent {shares['database']:.0%} of "
            f"their time in it, and {'the busiest' if result.shards else 'this'} process was "
            f"{busy:.0%} busy."
        )
    return None


_BUSY_LOOP = (
    "This process's event loop was the bottleneck ({busy} busy): the latencies contain our own "
    "queueing. A lower --concurrency shortens them without costing throughput."
)
_BUSY_SENTENCES = {
    "open": "This process's event loop was the bottleneck ({busy} busy): the latencies contain its "
    "queue. It keeps up with a lower --rate, or with --no-time-split.",
    "sync": "This process's one thread was the bottleneck ({busy} busy).",
    "threads": "This process was the bottleneck ({busy} busy): Python runs one thread at a time.",
}


def time_shares(result: RunResult) -> dict[str, float]:
    """Return the shares (0 to 1) of each part in all operations' time."""
    totals = dict.fromkeys(PARTS, 0.0)
    for operation in result.by_operation.values():
        if operation.split is not None:
            for name in totals:
                part = getattr(operation.split, name)
                totals[name] += part.mean_ns * part.count
    whole = sum(totals.values())
    return {name: total / whole for name, total in totals.items()} if whole else {}


def serialised_writes(result: RunResult) -> str | None:
    """Return what SQLite's single writer cost, None where there was no queue for it."""
    if result.environment.get("database", {}).get("product") != "SQLite":
        return None
    means = {
        operation.kind: operation.split.database.mean_ns / 1e6
        for operation in result.by_operation.values()
        if operation.split is not None and operation.count
    }
    if "write" not in means or result.mode == "sync":
        return None
    beside = f"; a read {means['read']:.2f} ms" if "read" in means else ""
    return (
        f"SQLite lets one transaction write at a time: a write spent {means['write']:.2f} ms in "
        f"the database on average, most of it queueing for the file{beside}."
    )
