"""
What slows a job down for the sake of others: hooks, asked before each chunk.

A hook is asked outside any transaction and says how long to wait and why, or None. It is
asked again after a wait, unless the wait says otherwise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ConfigurationError


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


@dataclass(frozen=True, slots=True)
class LockWaits:
    """Wait while more than `limit` others wait for a lock in this database (PostgreSQL)."""

    limit: int = 0
    every: float = 1.0

    async def __call__(self, pace: Pace) -> Wait | None:
        """Count the backends that wait for a lock of any kind, advisory ones too."""
        waiting = await _number(pace, "LockWaits", _WAITING)
        if waiting <= self.limit:
            return None
        return Wait(self.every, f"{waiting} wait for locks, more than {self.limit}")


@dataclass(slots=True)
class WalRate:
    """
    Wait while the server writes more than `limit` bytes of WAL a second (PostgreSQL).

    Whoever writes them: standbys and archives have to take them all. Measured from one ask to
    the next, over ten seconds at most.
    """

    limit: float
    clock: Callable[[], float] = time.monotonic
    _since: tuple[float, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ConfigurationError("WalRate takes bytes a second, above 0")

    async def __call__(self, pace: Pace) -> Wait | None:
        """Ask how much was written, and how long that would have taken at the limit."""
        written, now = await _number(pace, "WalRate", _WRITTEN), self.clock()
        if self._since is None or now - self._since[0] > _WINDOW:
            self._since = now, written
            return None
        elapsed, more = now - self._since[0], written - self._since[1]
        rest = more / self.limit - elapsed
        if rest <= 0:
            return None
        rate = more / max(elapsed, 1e-3)
        return Wait(
            min(rest, _LONGEST_WAIT),
            f"{rate / 1e6:,.1f} MB/s of WAL, more than {self.limit / 1e6:,.1f}",
        )


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """Wait for a time of day, as "22:00-06:00", in a time zone."""

    span: str
    timezone: str = "UTC"
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        match = _SPAN.fullmatch(self.span)
        if match is None or match[1] == match[2]:
            raise ConfigurationError(f"{self.span!r} is no time of day: say 22:00-06:00")
        try:
            ZoneInfo(self.timezone)
        except (OSError, ValueError, LookupError) as error:
            raise ConfigurationError(f"no time zone {self.timezone!r} is known here") from error

    async def __call__(self, _pace: Pace) -> Wait | None:
        """Look at the clock: a long wait is asked about each minute."""
        now = self.now().astimezone(ZoneInfo(self.timezone))
        begin, end = (timedelta(hours=int(t[:2]), minutes=int(t[3:])) for t in self.span.split("-"))
        time_ = timedelta(hours=now.hour, minutes=now.minute, seconds=now.second)
        inside = begin <= time_ < end if begin < end else not end <= time_ < begin
        if inside:
            return None
        rest = (begin - time_) % timedelta(days=1)
        return Wait(min(rest.total_seconds(), 60.0), f"it is not {self.span} ({self.timezone})")


_WINDOW = 10.0
_LONGEST_WAIT = 5.0
_SPAN = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d)-((?:[01]\d|2[0-3]):[0-5]\d)")
_WAITING = text(
    "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE NOT l.granted AND a.datname = current_database()"  # what every role may see
)
_WRITTEN = text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")


async def _number(pace: Pace, name: str, query: TextClause) -> int:
    if pace.engine.dialect.name != "postgresql":
        raise ConfigurationError(f"{name} asks PostgreSQL, and the job runs on another database")
    async with pace.engine.connect() as connection:
        return int(await connection.scalar(query) or 0)
