"""
What a run found beside its latencies, as parts of a `RunResult`: statements that operations
repeat, and what the server itself counted. Each is frozen, mergeable, and to and from JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeVar

from .parts import optional


@dataclass(frozen=True, slots=True)
class RepeatedStatement:
    """
    A statement that single operations executed again and again: an N+1.

    `statement`: the SQL, shortened, its literals masked. `source`: the user's line that asked,
    as `file:line in function`, None where there is none. `cause`: what made the ORM ask, such as
    `lazy load of Song.chords`. `executions`: how often, in the `operations` that repeated it
    (those of the run's that ended well), `most` in one of them.
    """

    operation: str
    statement: str
    source: str | None
    cause: str | None
    operations: int
    executions: int
    most: int

    @property
    def mean(self) -> float:
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"mean": round(self.mean, 4)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})


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
class DatabaseCounts:
    """
    What `pg_stat_database` counted in this database during the run, our own look-ups apart.

    `blocks_hit` were in shared buffers, `blocks_read` were not. `temp_bytes` went to files.
    """

    commits: int = 0
    rollbacks: int = 0
    blocks_hit: int = 0
    blocks_read: int = 0
    deadlocks: int = 0
    temp_files: int = 0
    temp_bytes: int = 0

    @property
    def cache_hits(self) -> float | None:
        """The share (0 to 1) of blocks that were in shared buffers; None where none was asked."""
        blocks = self.blocks_hit + self.blocks_read
        return self.blocks_hit / blocks if blocks else None

    def merged(self, other: DatabaseCounts) -> DatabaseCounts:
        """Return the larger of each: see `ServerSide.merged`."""
        return _largest(self, other)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        hits = self.cache_hits
        return asdict(self) | {"cache_hits": None if hits is None else round(hits, 6)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class ServerStatement:
    """What `pg_stat_statements` counted of one normalised statement during the run."""

    statement: str
    calls: int
    total_ms: float
    rows: int

    @property
    def mean_ms(self) -> float:
        """Milliseconds in the server per call."""
        return self.total_ms / self.calls if self.calls else 0.0

    def merged(self, other: ServerStatement) -> ServerStatement:
        """Return the larger of each: see `ServerSide.merged`."""
        return _largest(self, other)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "statement": self.statement,
            "calls": self.calls,
            "total_ms": round(self.total_ms, 3),
            "mean_ms": round(self.mean_ms, 4),
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})


Counts = TypeVar("Counts", DatabaseCounts, ServerStatement)


@dataclass(frozen=True, slots=True)
class ServerSide:
    """
    The server's own account of the run, as far as it may be asked.

    `database` and `statements` (those with most time in the server first) are differences over
    the run, None where they could not be had. `calls` and `total_ms` are of all statements,
    shown or not. `waits`: how often connections of this database were seen waiting for what, or
    `running`, in `samples` looks at them. `notes`: what is missing, and why.
    """

    database: DatabaseCounts | None = None
    statements: tuple[ServerStatement, ...] | None = None
    calls: int | None = None
    total_ms: float | None = None
    waits: Mapping[str, int] = field(default_factory=dict)
    samples: int = 0
    notes: tuple[str, ...] = ()

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
            waits={n: self.waits.get(n, 0) + other.waits.get(n, 0) for n in names},
            samples=self.samples + other.samples,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        statements = self.statements
        return {
            "database": self.database.to_dict() if self.database else None,
            "statements": None if statements is None else [s.to_dict() for s in statements],
            "calls": self.calls,
            "total_ms": None if self.total_ms is None else round(self.total_ms, 3),
            "waits": dict(self.waits),
            "samples": self.samples,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        statements = data["statements"]
        return cls(
            database=DatabaseCounts.from_dict(data["database"]) if data["database"] else None,
            statements=(
                None if statements is None else tuple(map(ServerStatement.from_dict, statements))
            ),
            calls=data["calls"],
            total_ms=data["total_ms"],
            waits=dict(data["waits"]),
            samples=data["samples"],
            notes=tuple(data["notes"]),
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
