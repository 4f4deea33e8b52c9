"""How long what is performed elsewhere is waited for, and how its process ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How long a run may take that keeps to its `op_timeout` and `grace`, in seconds.

    Who looks from outside waits longer than who looks from inside, which can tell more.
    `more` is for its loop to be at work again, `last` for the rest of its end.
    """

    op_timeout: float
    grace: float
    more: float
    last: float

    @classmethod
    def inside(cls, op_timeout: float, grace: float) -> Patience:
        """Return that of the run's own thread, which can say where its loop is."""
        return cls(op_timeout, grace, more=1.0, last=4.0)

    @classmethod
    def outside(cls, op_timeout: float, grace: float) -> Patience:
        """Return that of another process, for which it is only silent."""
        return cls(op_timeout, grace, more=3.0, last=4.5)

    @property
    def silence(self) -> float:
        """How long it may be silent."""
        return self.op_timeout + self.grace + self.more

    def silence_once_asked(self, times: int) -> float:
        """Return how long it may be silent behind a request to end, of so many."""
        return (self.grace if times == 1 else 0.0) + self.more

    @property
    def end(self) -> float:
        """How long it may take to end behind the first request."""
        return self.op_timeout + self.grace + self.last


def killed_by(code: int) -> str | None:
    """Return which signal killed the process of that exit code, in words; None for none."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else None
