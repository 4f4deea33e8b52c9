"""What an ingest has done, exact in spite of chunks that are tried again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from time import perf_counter

from ..jobs.states import State
from .listing import Missing, Problem
from .preparing import Prepared


@dataclass(slots=True)
class Counts:
    """
    Pairs and bytes that were read, and what became of the pairs.

    Seconds: `reading` and `computing` in threads, side by side; `waiting` is how long the
    database had nothing to do because no row was ready.
    """

    read: int = 0
    size: int = 0
    added: int = 0
    same: int = 0
    failed: int = 0
    reading: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def note(self, batch: Sequence[Prepared], added: int) -> None:
        """Count pairs that were read, of which so many have become new rows."""
        rows = sum(1 for one in batch if one.row is not None)
        self.read += len(batch)
        self.size += sum(one.size for one in batch)
        self.added += added
        self.same += rows - added
        self.failed += len(batch) - rows
        self.reading += sum(one.reading for one in batch)
        self.computing += sum(one.computing for one in batch)

    @contextmanager
    def while_waiting(self) -> Iterator[None]:
        """Count the time of a block as waiting."""
        began = perf_counter()
        try:
            yield
        finally:
            self.waiting += perf_counter() - began


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is, in pairs of files and in bytes."""

    pairs: int
    all_pairs: int
    size: int
    all_size: int


class Tally:
    """
    Counts of chunks that are committed, and of those under way, one in a partition.

    A chunk that is tried again has the same number, and is counted anew.
    """

    def __init__(self, missing: Missing) -> None:
        self._missing = missing
        self._committed = Counts()
        self._now: dict[tuple[int, int], tuple[int, Counts]] = {}

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        return sum((counts for _, counts in self._now.values()), self._committed)

    @property
    def progress(self) -> Progress:
        """The counts so far against what was missing."""
        now, missing = self.counts, self._missing
        # Others may find files, and files may grow, while we are at it.
        return Progress(
            now.read, max(missing.pairs, now.read), now.size, max(missing.size, now.size)
        )

    def begin(self, run: int, partition: int, number: int) -> Counts:
        """
        Return the counts of a chunk that begins, to be added to.

        The one before it in its partition is committed, unless it has the same number.
        """
        before, counts = self._now.get((run, partition), (number, Counts()))
        if before != number:
            self._committed += counts
        self._now[run, partition] = number, Counts()
        return self._now[run, partition][1]


@dataclass(frozen=True, slots=True)
class Ingested:
    """
    What became of a directory: `state` is `done`, or `paused` where it was told to stop.

    Of `found` pairs, `before` were in already and not read. `failed` is what could not be
    read, by name; `seconds` in all, `database` of them in the job's transactions.
    """

    state: State
    found: int
    before: int
    counts: Counts
    failed: tuple[Problem, ...]
    seconds: float
    database: float
