"""The lines on what changed since the baseline."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape

from ..results.changes import Comparison

_STYLES = {
    "regression": "bold red",
    "improved": "bold green",
    "holds": "green",
    "inconclusive": "yellow",
}
ONE_BASELINE = "One baseline does not tell how much runs of the same code differ; several do."


def baseline_lines(comparison: Comparison | None) -> Iterator[str]:
    """Yield two lines for each change, and one for each thing that was not the same."""
    if comparison is None:
        return
    yield ""
    yield f"[bold]against the baseline[/]  {escape(', '.join(comparison.baselines))}"
    for change in comparison.changes:
        style = _STYLES[change.finding]
        yield f"  [{style}]{change.finding}[/]  {escape(change.check)}"
        sure = f"  (95 %: {change.interval_text})" if change.low is not None else ""
        yield escape(f"    {change.now_text}, was {change.before_text}: {change.change_text}{sure}")
        if change.reason:
            yield escape(f"    {change.reason}")
    for sentence in comparison.differences:
        yield f"  [yellow]{escape(sentence)}[/]"
    if len(comparison.baselines) == 1:
        yield f"  [dim]{ONE_BASELINE}[/]"
