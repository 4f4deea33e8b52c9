"""What a run's coordinator and its shards tell each other, beside the task and its answer."""

from __future__ import annotations

from msgspec import field

from ...workers import Halt, Message


class Ready(Message, frozen=True):
    """Up: the warm-up is over."""


class Start(Message, frozen=True):
    """Down: all begin at this instant of the shard's own clock."""

    at_ns: int


class Ahead(Message, frozen=True):
    """Up: of its numbers the shard may have begun so many."""

    upto: int


class ShardSnapshot(Message, frozen=True, tag="snapshot"):
    """
    Up, each second: all that was counted so far, in at most `SNAPSHOT_BYTES`.

    `counts`, and the lists in `errors`, are by operation, in the order of the mix. `histograms` are
    the operations' latencies, and behind them the schedule's lag where there is one; encoded, None
    where nothing was counted or there was no room.
    """

    seconds: float
    counts: list[list[int]]
    in_use: int | None
    waiting: int | None
    busy: float
    lag_ns: int
    due: int
    errors: dict[str, list[int]] = field(default_factory=dict)
    checks: dict[str, list[int]] = field(default_factory=dict)
    histograms: list[str | None] = field(default_factory=list)


Up = Ready | Ahead | ShardSnapshot
Down = Start | Halt
