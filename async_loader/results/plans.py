"""The plans of a run's slowest statements, as parts of a `RunResult`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from .annotations import Count, NotNegative
from .notes import Rounded
from .part import Part


@dataclass(frozen=True, slots=True)
class PlanNode(Part):
    """One step of a plan; the steps that it takes its rows from follow, one level deeper."""

    depth: Count
    what: Annotated[str, Meta(description="Index Scan using songs_pkey on songs")]
    condition: Annotated[str | None, Meta(description="its values masked unless asked for")] = None
    estimated_rows: Annotated[NotNegative, Meta(description="per loop, by the planner")] = 0
    rows: Annotated[float | None, Meta(description="per loop; null: it was not executed")] = None
    loops: Annotated[float | None, Meta(description="null: it was not executed")] = None
    ms: Annotated[
        Annotated[float, Rounded(3)] | None,
        Meta(description="of all loops, with what is below; null: it was not executed"),
    ] = None
    blocks: Annotated[
        Count | None, Meta(description="hit and read, with what is below; null: not executed")
    ] = None


@dataclass(frozen=True, slots=True)
class StatementPlan(Part):
    """One of the slowest statements, and how the server performs it."""

    statement: Annotated[str, Meta(description="shortened, its literals masked")]
    operation: Annotated[str, Meta(description="the first that sent it")]
    calls: Count
    mean_ms: Annotated[NotNegative, Rounded(3), Meta(description="as the client waited")]
    slowest_ms: Annotated[NotNegative, Rounded(3), Meta(description="the call that is explained")]
    nodes: tuple[PlanNode, ...] = ()
    executed: Annotated[bool, Meta(description="whether the plan has what really happened")] = False
    note: Annotated[str | None, Meta(description="why it was not executed, or has no plan")] = None
    findings: Annotated[tuple[str, ...], Meta(description="what is to be looked at")] = ()
    parameters: Annotated[str | None, Meta(description="only where they were asked for")] = None
    source: Annotated[str | None, Meta(description="the user's line that sent it first")] = None

    @property
    def shape(self) -> tuple[tuple[int, str], ...]:
        """What makes two plans the same one."""
        return tuple((node.depth, node.what) for node in self.nodes)


def merged_plans(
    mine: Iterable[StatementPlan], theirs: Iterable[StatementPlan]
) -> tuple[StatementPlan, ...]:
    """Return the plans of both, of a statement the one of the slower call."""
    found: dict[str, StatementPlan] = {}
    for plan in (*mine, *theirs):
        known = found.get(plan.statement)
        if known is None or plan.slowest_ms > known.slowest_ms:
            found[plan.statement] = plan
    return tuple(sorted(found.values(), key=lambda plan: -plan.mean_ms))
