"""
What slows a job down for the sake of others: hooks, asked before each chunk.

A hook is asked outside any transaction and says how long to wait and why, or None. It is
asked again after a wait, unless the wait says otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass(frozen=True, slots=True)
class Wait:
    """So many seconds, and the reason for people; `again`: ask once more afterwards."""

    seconds: float
    why: str
    again: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """What a hook may judge by: how long this worker's last chunk took, and the database."""

    busy_seconds: float
    engine: AsyncEngine


ThrottleHook = Callable[[Pace], Awaitable[Wait | None]]


@dataclass(frozen=True, slots=True)
class NiceRatio:
    """Sleep this share of the busy time: 0.5 rests a second for every two seconds of work."""

    ratio: float

    async def __call__(self, pace: Pace) -> Wait | None:
        """Ask for a rest after each chunk."""
        seconds = self.ratio * pace.busy_seconds
        return Wait(seconds, f"nice ratio {self.ratio:g}", again=False) if seconds > 0 else None


@dataclass(frozen=True, slots=True)
class ActiveBackends:
    """Wait while more than `limit` others are at work in this PostgreSQL."""

    limit: int
    every: float = 1.0

    async def __call__(self, pace: Pace) -> Wait | None:
        """Count the busy backends that are not a job's."""
        async with pace.engine.connect() as connection:
            active = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            )
        if (active or 0) <= self.limit:
            return None
        return Wait(self.every, f"{active} active backends, more than {self.limit}")


@dataclass(frozen=True, slots=True)
class FlagFile:
    """Wait while a file exists: for operators."""

    path: Path
    every: float = 1.0

    async def __call__(self, _pace: Pace) -> Wait | None:
        """Look for the file."""
        return Wait(self.every, f"{self.path} exists") if self.path.exists() else None
