"""Where one operation's time goes, while it goes."""

from __future__ import annotations

from asyncio import current_task
from contextvars import ContextVar
from typing import Any, Literal

from ..metrics.repeats import Site
from .loop_meter import LoopMeter

# What an operation waits for: a connection of the pool, a new one to be opened, its ping, or
# the database.
Wait = Literal["pool", "connect", "ping", "database"]


class OperationTimes:
    """
    One operation's nanoseconds, by what they went for, and its statements.

    `application_ns` and `orm_ns` are those in which the operation ran: outside of SQLAlchemy's
    awaited calls and within them, driver included. The others are those in which it waited, less
    what it then waited for the loop (`queue_ns`). What is in none of them it waited elsewhere.

    Nothing is counted twice: of what an operation does side by side, in tasks or threads of its
    own, the union is. `meter`: of the event loop that runs it, in `task`; None in the sync modes,
    where nobody knows when it ran. `inside`: how deep in SQLAlchemy's awaited calls its own task
    is, and `orm` whether the innermost of them runs SQLAlchemy's own code. `incomplete`: what the
    sampler saw within those (see `LoopSampler`). `seen`: how often each statement was executed,
    and `repeated` where those come from that were `n_plus_one` times (0: none; see `repeats`).
    """

    __slots__ = (
        "_since_ns",
        "application_ns",
        "connect_ns",
        "covered_ns",
        "database_ns",
        "incomplete",
        "inside",
        "meter",
        "n_plus_one",
        "operation",
        "orm",
        "orm_ns",
        "paused_ns",
        "ping_ns",
        "pool_ns",
        "queue_ns",
        "repeated",
        "seen",
        "statements",
        "task",
    )

    def __init__(
        self, operation: str = "", *, meter: LoopMeter | None = None, n_plus_one: int = 0
    ) -> None:
        self.operation = operation
        self.meter = meter
        self.task = current_task() if meter is not None else None
        self.n_plus_one = n_plus_one
        self.pool_ns = self.connect_ns = self.ping_ns = self.database_ns = 0
        self.application_ns = self.orm_ns = self.queue_ns = 0
        self.inside = 0
        self.orm = False
        self.statements = 0
        self.seen: dict[str, int] = {}
        self.repeated: dict[str, Site] = {}
        self.incomplete: list[Any] = []
        self.covered_ns = 0
        self._since_ns = self.paused_ns = 0  # since when it runs, and since when it does not

    @property
    def stepped(self) -> bool:
        """Whether it is known when the operation ran."""
        return self.meter is not None

    def waited(self, wait: Wait, since_ns: int, until_ns: int) -> None:
        """Count what an operation waited for, but for what it waited beside that already."""
        covered_ns = self.covered_ns
        waited_ns = until_ns - (since_ns if since_ns > covered_ns else covered_ns)
        if waited_ns <= 0:
            return
        self.covered_ns = until_ns
        if wait == "database":
            self.database_ns += waited_ns
        elif wait == "pool":
            self.pool_ns += waited_ns
        elif wait == "connect":
            self.connect_ns += waited_ns
        else:
            self.ping_ns += waited_ns

    def went_on(
        self, wait: Wait | None, since_ns: int, now_ns: int, meter: LoopMeter, steps: int
    ) -> None:
        """
        Count a wait that is over, up to when what it was for came, and then for the loop.

        As `waited` and `queued` would. `steps`: see `LoopMeter.came`.
        """
        covered_ns = self.covered_ns
        # What an operation waited for in a task beside its own came when that was done.
        beside_ns = covered_ns if wait is None and covered_ns > since_ns else None
        came_ns = meter.came(self, wait, since_ns, now_ns, steps, beside_ns)
        if wait is not None:
            self.waited(wait, since_ns, came_ns)
            covered_ns = self.covered_ns
        queued_ns = now_ns - (came_ns if came_ns > covered_ns else covered_ns)
        if queued_ns > 0:
            self.covered_ns = now_ns
            self.queue_ns += queued_ns

    def queued(self, since_ns: int, until_ns: int) -> None:
        """Count what an operation waited for the event loop."""
        queued_ns = until_ns - max(since_ns, self.covered_ns)
        if queued_ns > 0:
            self.covered_ns = until_ns
            self.queue_ns += queued_ns

    def ran_aside(self, since_ns: int, until_ns: int) -> None:
        """Count the time in which a task of the operation's own ran a call of SQLAlchemy's."""
        ran_ns = until_ns - max(since_ns, self.covered_ns)
        if ran_ns > 0:
            self.covered_ns = until_ns
            self.orm_ns += ran_ns

    def began(self, at_ns: int) -> None:
        """Note that the operation's own task runs."""
        self._since_ns, self.paused_ns = at_ns, 0

    def lap(self, at_ns: int) -> None:
        """Count the time that the operation's own task has run, which goes on."""
        since_ns, covered_ns = self._since_ns, self.covered_ns
        if not since_ns:
            return
        self._since_ns = at_ns
        ran_ns = at_ns - (since_ns if since_ns > covered_ns else covered_ns)
        if ran_ns > 0:
            self.covered_ns = at_ns
            if self.orm:
                self.orm_ns += ran_ns
            else:
                self.application_ns += ran_ns

    def resumed(self, at_ns: int) -> None:
        """Note that what the operation's own task did until now has been counted."""
        if self._since_ns:
            self._since_ns = at_ns

    def paused(self, at_ns: int) -> None:
        """Count the time that the operation's own task has run until now."""
        self.lap(at_ns)
        self._since_ns, self.paused_ns = 0, at_ns

    def tried_again(self) -> None:
        """Forget the statements of a try that failed: doing it again is no N+1."""
        self.seen.clear()
        self.repeated.clear()


# A context variable: SQLAlchemy's greenlets run in the context of the task that spawned them.
current_times: ContextVar[OperationTimes | None] = ContextVar("current_times", default=None)
