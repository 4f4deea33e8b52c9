"""
What a run found beside its latencies, as parts of a `RunResult`: statements that operations
repeat, and what the server itself counted. Each is frozen and mergeable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, TypeVar

from msgspec import Meta

from .annotations import Count, Milliseconds, NotNegative, Share
from .notes import LATER, OMITTED, Rounded, shown
from .part import Part
from .parts import optional


@dataclass(frozen=True, slots=True)
class RepeatedStatement(Part):
    """A statement that single operations executed again and again: an N+1."""

    operation: str
    statement: Annotated[str, Meta(description="shortened, its literals masked")]
    source: Annotated[str | None, Meta(description="the user's line that asked, with function")]
    cause: Annotated[
        str | None, Meta(description="what made the ORM ask: lazy load of Song.chords")
    ]
    operations: Annotated[Count, Meta(description="that ended well and repeated it")]
    executions: Annotated[Count, Meta(description="in all of those")]
    most: Annotated[Count, Meta(description="in one operation")]

    @property
    @shown
    def mean(self) -> Annotated[NotNegative, Rounded(4)]:
        """Executions per operation, of those that repeated it."""
        return self.executions / self.operations if self.operations else 0.0

    @property
    def key(self) -> tuple[str, str, str | None, str | None]:
        """What makes two findings the same one."""
        return self.operation, self.statement, self.source, self.cause

    def merged(self, other: RepeatedStatement) -> RepeatedStatement:
        """Return the two together."""
        return replace(
            self,
            operations=self.operations + other.operations,
            executions=self.executions + other.executions,
            most=max(self.most, other.most),
        )


def merged_repeats(
    mine: Iterable[RepeatedStatement], theirs: Iterable[RepeatedStatement]
) -> tuple[RepeatedStatement, ...]:
    """Return all findings of both, each once, those with most executions first."""
    found: dict[tuple[str, str, str | None, str | None], RepeatedStatement] = {}
    for repeat in (*mine, *theirs):
        known = found.get(repeat.key)
        found[repeat.key] = known.merged(repeat) if known else repeat
    return tuple(sorted(found.values(), key=lambda r: (-r.executions, str(r.key))))


@dataclass(frozen=True, slots=True)
class DatabaseCounts(Part):
    """What `pg_stat_database` counted in this database during the run, our own look-ups apart."""

    commits: Count = 0
    rollbacks: Count = 0
    blocks_hit: Annotated[Count, Meta(description="in shared buffers")] = 0
    blocks_read: Annotated[Count, Meta(description="not in shared buffers")] = 0
    deadlocks: Count = 0
    temp_files: Count = 0
    temp_bytes: Count = 0

    @property
    @shown
    def cache_hits(self) -> Annotated[Share, Rounded(6)] | None:
        """The share (0 to 1) of blocks that were in shared buffers; null where none was asked."""
        blocks = self.blocks_hit + self.blocks_read
        return self.blocks_hit / blocks if blocks else None

    def merged(self, other: DatabaseCounts) -> DatabaseCounts:
        """Return the larger of each: see `ServerSide.merged`."""
        return _largest(self, other)


@dataclass(frozen=True, slots=True)
class ServerStatement(Part):
    """What `pg_stat_statements` counted of one normalised statement during the run."""

    statement: str
    calls: Count
    total_ms: Annotated[Milliseconds, Rounded(3)]
    rows: Count

    @property
    @shown
    def mean_ms(self) -> Annotated[NotNegative, Rounded(4)]:
        """Milliseconds in the server per call."""
        return self.total_ms / self.calls if self.calls else 0.0

    def merged(self, other: ServerStatement) -> ServerStatement:
        """Return the larger of each: see `ServerSide.merged`."""
        return _largest(self, other)


Counts = TypeVar("Counts", DatabaseCounts, ServerStatement)


@dataclass(frozen=True, slots=True)
class ServerSide(Part):
    """The server's own account of the run, as far as it may be asked; null where it may not."""

    database: Annotated[DatabaseCounts | None, Meta(description="differences over the run")] = None
    statements: Annotated[
        tuple[ServerStatement, ...] | None,
        Meta(description="differences over the run, most time in the server first"),
    ] = None
    calls: Annotated[Count | None, Meta(description="of all statements, shown or not")] = None
    total_ms: Annotated[
        Annotated[NotNegative, Rounded(3)] | None,
        Meta(description="milliseconds of all statements, shown or not"),
    ] = None
    rows: Annotated[
        Count | None,
        Meta(description="returned or written by all statements, shown or not"),
        LATER,
        OMITTED,
    ] = None
    waits: Annotated[
        Mapping[str, Count],
        Meta(description="how often connections were seen waiting for what, or running"),
    ] = field(default_factory=dict)
    samples: Annotated[Count, Meta(description="looks at the connections")] = 0
    notes: Annotated[tuple[str, ...], Meta(description="what is missing, and why")] = ()

    def merged(self, other: ServerSide) -> ServerSide:
        """
        Return the two together, of shards that load one server at the same time.

        Each saw what all of them did, so counts do not add up: the larger one is the one that
        looked longer. Samples do.
        """
        names = dict.fromkeys((*self.waits, *other.waits))
        return ServerSide(
            database=optional(DatabaseCounts.merged, self.database, other.database),
            statements=optional(_merged_statements, self.statements, other.statements),
            calls=optional(max, self.calls, other.calls),
            total_ms=optional(max, self.total_ms, other.total_ms),
            rows=optional(max, self.rows, other.rows),
            waits={n: self.waits.get(n, 0) + other.waits.get(n, 0) for n in names},
            samples=self.samples + other.samples,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )


def _merged_statements(
    mine: tuple[ServerStatement, ...], theirs: tuple[ServerStatement, ...]
) -> tuple[ServerStatement, ...]:
    found = {statement.statement: statement for statement in mine}
    for statement in theirs:
        known = found.get(statement.statement)
        found[statement.statement] = known.merged(statement) if known else statement
    return tuple(sorted(found.values(), key=lambda s: (-s.total_ms, s.statement)))


def _largest(mine: Counts, theirs: Counts) -> Counts:
    """Return a part with the larger of each field."""
    return replace(
        mine, **{f.name: max(getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(mine)}
    )
