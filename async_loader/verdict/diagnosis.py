"""What held a run back, said in a sentence with its figures."""

from __future__ import annotations

from ..results.loop_profile import Blocking
from ..results.machine import MachineResult
from ..results.run import RunResult
from ..results.time_split import PARTS

BUSY = 0.9
# A run of less than this, in seconds, is mostly its own beginning and end.
SHORTEST = 0.5
# A share of all latency that names its owner as the bottleneck.
MOST = 0.5
# Of the run: so much in which one line keeps the event loop is felt by all other operations.
_FELT = 0.05


def bottleneck(result: RunResult) -> str | None:
    """
    Return the sentence that names what limited the run; None where nothing stands out.

    First whoever took the cores or the connections, then the event loop and its queue: what was
    waited for meanwhile is nobody else's doing, and the database is never blamed for it.
    """
    if result.seconds < SHORTEST:
        return None
    if (machine := starvation(result)) is not None:
        return _starved(machine)
    return _busy(result) or _of_shares(result)


def starvation(result: RunResult) -> MachineResult | None:
    """Return the machine where it left this process too little of its cores."""
    machine = result.process.machine
    return machine if machine is not None and machine.starved else None


def _starved(machine: MachineResult) -> str:
    waited = ""
    if machine.waited is not None:
        waited = f" and waited for a core for {machine.waited:.0%}"
    found = list(machine.evidence())
    evidence = f": {'; '.join(found)}" if found else ""
    return (
        f"The machine was busy{evidence}. This process had a core for {machine.ran:.0%} of the "
        f"time{waited}: its latencies contain that wait. Run it where it has a core of its own."
    )


def _busy(result: RunResult) -> str | None:
    busy = result.process.loop_busy
    if busy <= BUSY:
        return None
    if (worst := blocking(result)) is not None and worst.total_ms > _MOST_MS * result.seconds:
        return None  # it did not compute, it was kept from it: a sentence of its own says so
    sentence = _BUSY_SENTENCES.get(result.mode, _BUSY_LOOP).format(busy=f"{busy:.0%}")
    if result.shards:
        return sentence.replace("This process's event loop", "A process's event loop")
    return sentence


# More than half of the time.
_MOST_MS = 500


def _of_shares(result: RunResult) -> str | None:
    shares = time_shares(result)
    size = result.pool.size if result.pool else 0
    if shares.get("pool_wait", 0) > MOST:
        return (
            f"The pool of {size} was the bottleneck: operations waited for a connection for "
            f"{shares['pool_wait']:.0%} of their time."
        )
    if shares.get("database", 0) > MOST and not result.leaks:
        return (
            f"The database was the bottleneck: operations spent {shares['database']:.0%} of "
            f"their time in it, and {'the busiest' if result.shards else 'this'} process was "
            f"{result.process.loop_busy:.0%} busy."
        )
    for part, sentence in _OTHER_SENTENCES.items():
        if shares.get(part, 0) > MOST:
            return sentence.format(share=f"{shares[part]:.0%}")
    return None


_BUSY_LOOP = (
    "This process's event loop was the bottleneck ({busy} busy). That throughput is what it can "
    "do, and validly measured; the latencies contain our own queueing."
)
_BUSY_SENTENCES = {
    "open": "This process's event loop was the bottleneck ({busy} busy): the latencies contain its "
    "queue. It keeps up with a lower `rate`, or without `time_split`.",
    "sync": "This process's one thread was the bottleneck ({busy} busy).",
    "threads": "This process was the bottleneck ({busy} busy): Python runs one thread at a time.",
}
_OTHER_SENTENCES = {
    "ping": "pool_pre_ping takes most of the time: operations spent {share} of it asking "
    "connections whether they live.",
    "connect": "Opening connections takes most of the time: operations spent {share} of it on "
    "that. A pool that keeps them, or a warm-up, saves it.",
    "application": "The application's own code takes most of the time: operations spent {share} "
    "of it running that.",
    "elsewhere": "Operations spent {share} of their time waiting for something that is neither "
    "the database nor this process: another service, a lock, a timer.",
    "loop_queue": "Operations were ready and waited for the event loop for {share} of their time.",
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


def blocking(result: RunResult) -> Blocking | None:
    """Return the line that kept the event loop most, where that is felt; None: there is none."""
    profile = result.loop_profile
    if profile is None or not profile.blocking:
        return None
    worst = profile.blocking[0]
    return worst if worst.total_ms > _FELT * 1000 * result.seconds else None


def blocked_loop(result: RunResult) -> str | None:
    """Return the sentence that names what kept the event loop from all other operations."""
    worst = blocking(result)
    if worst is None:
        return None
    by = f"operation {worst.operation!r}" if worst.operation else "a task beside the operations"
    return (
        f"The event loop was blocked by {by} at {worst.source}: {worst.total_ms / 1e3:.1f} s in "
        f"all, up to {worst.longest_ms:.0f} ms at a time, in which no other operation went on. "
        "What blocks belongs in a thread (asyncio.to_thread), what computes in a process."
    )


def leaked_connections(result: RunResult) -> list[str]:
    """Return a sentence for each line whose connections were not given back."""
    return [
        f"Operation {leak.operation!r} ended with {_connections(leak.connections)} still out"
        f"{_left(leak.collected, leak.in_transaction)}, taken at {leak.source} and never closed: "
        "close what is opened, or use async with."
        for leak in result.leaks
    ]


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count:,} connections"


def _left(collected: int, in_transaction: int) -> str:
    parts = []
    if in_transaction:
        parts.append(f"{in_transaction:,} with a transaction open")
    if collected:
        parts.append(f"{collected:,} found by the garbage collector")
    return f" ({', '.join(parts)})" if parts else ""


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
