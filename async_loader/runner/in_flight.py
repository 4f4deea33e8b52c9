"""The operations that are under way: since when, and which of them have taken too long."""

from __future__ import annotations

from asyncio import Task
from typing import Any

from ..clock import SECOND_NS
from ..failures import CANCELLED, TIMEOUT, Failure
from ..instruments import PoolWatch, break_off
from ..tasks import CLOSING


class InFlight:
    """
    The tasks that perform an operation now, each with the time it began.

    `cancel_overdue`, called now and then, is what a timer for every operation would be. What
    does not end by its cancellation loses its connection.
    """

    def __init__(self, op_timeout: float, pool: PoolWatch | None) -> None:
        self._op_timeout_ns = int(op_timeout * SECOND_NS)
        self._pool = pool
        self._expired: dict[Task[Any], int] = {}  # when it was cancelled
        self.since: dict[Task[Any], int] = {}
        self.ending = False
        """Whether all are being cancelled, whatever they do."""

    def ended(self, task: Task[Any]) -> None:
        """Forget a task's operation."""
        del self.since[task]
        self._expired.pop(task, None)

    def timed_out(self, task: Task[Any]) -> bool:
        """Return whether a cancellation is ours, and nobody else wants the task to end."""
        ours = task in self._expired and not self.ending
        if ours:
            _forget_cancellations(task)
        return ours

    def why_ended(self, task: Task[Any]) -> Failure | None:
        """Return why an operation was cancelled that then ended in its own way, if it was."""
        if self.ending and task.cancelling():
            return CANCELLED
        _forget_cancellations(task)
        return TIMEOUT if task in self._expired else None

    def cancel_overdue(self, now_ns: int) -> None:
        """Cancel what has taken too long, and break off what was cancelled in vain."""
        for task, began_ns in self.since.items():
            if task not in self._expired:
                if now_ns - began_ns > self._op_timeout_ns:
                    self._expired[task] = now_ns
                    task.cancel()
            elif now_ns - self._expired[task] > CLOSING * SECOND_NS:
                break_off(self._pool, (task,))

    def break_off(self) -> None:
        """Break off the connections of all of them."""
        break_off(self._pool, self.since)


def _forget_cancellations(task: Task[Any]) -> None:
    """
    Make a task as good as new for its next operation.

    Before Python 3.13 an `asyncio.TaskGroup` of the operation's own leaves its parent
    cancelled for ever when one of its tasks fails.
    """
    while task.cancelling():
        task.uncancel()
