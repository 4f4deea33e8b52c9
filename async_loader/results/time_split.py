"""Where the time of operations went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Self

from msgspec import Meta

from .annotations import Count, EncodedHistogram, NotNegative, Summary
from .histogram import Histogram, sum_of
from .notes import Key, Named, Rounded
from .part import Part

PARTS: Mapping[str, str] = {
    "pool_wait": "pool wait",
    "connect": "connect",
    "ping": "ping",
    "database": "database",
    "orm": "ORM",
    "application": "app",
    "elsewhere": "elsewhere",
    "loop_queue": "loop queue",
}
"""The parts of a latency by name, as reports head them."""

MEANINGS: Mapping[str, str] = {
    "pool_wait": "until a connection of the pool was free",
    "connect": "opening a connection",
    "ping": "asking a connection whether it lives",
    "database": "from asking the database to its answer",
    "orm": "running SQLAlchemy and the driver",
    "application": "running the application's own code",
    "elsewhere": "waiting for what is neither",
    "loop_queue": "ready, while the event loop was at something else",
}
"""What the parts are, in words."""

# Older results have no others; reports leave out what nothing was spent on.
_ALWAYS = ("pool_wait", "database", "orm")
_LATER = frozenset(PARTS) - frozenset(_ALWAYS)

SplitSummaries = Annotated[
    Mapping[str, Summary],
    Named("SplitSummaries", "The parts of a latency.", tuple(MEANINGS.items()), _LATER),
]
SplitHistograms = Annotated[
    Mapping[str, EncodedHistogram],
    Named("SplitHistograms", "The parts of a latency.", tuple(MEANINGS.items()), _LATER),
]


@dataclass(frozen=True, slots=True)
class Statements(Part):
    """How often the database was asked, BEGIN, COMMIT and ROLLBACK apart."""

    total: Count
    most: Annotated[Count, Key("max"), Meta(description="in one operation")]
    mean: Annotated[NotNegative, Rounded(4), Meta(description="per operation")] = 0.0


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """
    Where one operation's latency went, and how many statements it took.

    `pool_wait`: waiting for a connection of the pool; `connect`: opening one; `ping`: asking
    whether it lives (`pool_pre_ping`). `database`: from asking the database to its answer. `orm`:
    running SQLAlchemy and the driver; `application`: running all else. `elsewhere`: waiting for
    something that is none of these, as another service. `loop_queue`: ready, and waiting for the
    event loop, which was at something else. Per operation they add up to the latency.
    `statements`: how often the database was asked (BEGIN, COMMIT and ROLLBACK apart), in all
    `count` operations, and `most_statements` in one.

    The sync modes know pool wait, connect, ping and database; the rest is `orm` there.
    """

    pool_wait: Histogram
    database: Histogram
    orm: Histogram
    statements: int
    most_statements: int
    connect: Histogram = field(default_factory=Histogram)
    ping: Histogram = field(default_factory=Histogram)
    application: Histogram = field(default_factory=Histogram)
    elsewhere: Histogram = field(default_factory=Histogram)
    loop_queue: Histogram = field(default_factory=Histogram)

    @property
    def count(self) -> int:
        """How many operations were split."""
        return self.orm.count

    def parts(self) -> Iterator[tuple[str, Histogram]]:
        """Yield each part with its name."""
        return ((name, getattr(self, name)) for name in PARTS)

    def merged(self, other: TimeSplit) -> TimeSplit:
        """Return the two together."""
        return TimeSplit(
            **{name: sum_of(part, getattr(other, name)) for name, part in self.parts()},
            statements=self.statements + other.statements,
            most_statements=max(self.most_statements, other.most_statements),
        )

    @property
    def statements_per_operation(self) -> float:
        """The mean number of statements; 0 where there was no operation."""
        return self.statements / self.count if self.count else 0.0

    def asked(self) -> Statements:
        """Return how often the database was asked."""
        return Statements(self.statements, self.most_statements, self.statements_per_operation)

    @classmethod
    def of(cls, parts: Mapping[str, Histogram], statements: Statements) -> Self:
        """Return the split of which these are the parts; the ones that are missing are empty."""
        return cls(**parts, statements=statements.total, most_statements=statements.most)


def parts_shown(*splits: TimeSplit) -> list[str]:
    """Return the names of the parts that a report shows of these: those that take any time."""
    shown = set(_ALWAYS).union(*(_that_matter(split) for split in splits))
    return [name for name in PARTS if name in shown]


def _that_matter(split: TimeSplit) -> set[str]:
    means = {name: part.mean_ns for name, part in split.parts()}
    return {name for name, mean in means.items() if mean > 0.005 * sum(means.values())}
