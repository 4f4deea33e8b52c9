"""The plans of the slowest statements, as lines that reports can show."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from ..results.plans import PlanNode
from ..results.run import RunResult


def plan_parts(result: RunResult) -> Iterator[RenderableType]:
    """Yield what a console shows."""
    for number, line in enumerate(plan_lines(result)):
        if not number:
            yield ""
            yield "[bold]plans[/]  (of the slowest statements)"
        text = line.lstrip()
        indented = (0, 0, 0, 2 + len(line) - len(text))
        yield Padding(Text(text, "yellow" if text.startswith("!") else ""), indented)


def plan_lines(result: RunResult) -> Iterator[str]:
    """Yield the slowest statements with their plans: steps are indented, findings come first."""
    for plan in result.plans or ():
        yield (
            f"{plan.operation}: {plan.statement}: {plan.mean_ms:,.1f} ms on average of "
            f"{plan.calls:,}, at most {plan.slowest_ms:,.1f} ms"
            f"{f', at {plan.source}' if plan.source else ''}"
        )
        yield from (f"  ! {finding}" for finding in plan.findings)
        if plan.note is not None:
            yield f"  {plan.note}"
        if plan.parameters is not None:
            yield f"  parameters {plan.parameters}"
        yield from (f"  {'  ' * node.depth}{_node_text(node)}" for node in plan.nodes)


def _node_text(node: PlanNode) -> str:
    rows = f"{node.estimated_rows:,.0f} rows expected"
    if node.rows is not None and node.ms is not None:
        loops = f" in each of {node.loops:,.0f} loops" if node.loops != 1 else ""
        rows = f"{node.rows:,.0f} rows{loops} ({rows}), {node.ms:,.2f} ms, {node.blocks:,} blocks"
    condition = f"  [{node.condition}]" if node.condition else ""
    return f"{node.what}: {rows}{condition}"
