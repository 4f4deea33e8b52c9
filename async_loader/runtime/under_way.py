"""
The run that is under way in this process, for who watches it from outside its event loop.

A thread that knows no event loop, and the process that started this one, have nothing else to
tell of a run that does not come to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..results.run import Outcome, RunResult

Stage = Literal["starting", "set-up", "running", "tear-down", "over"]
# What is known of a run now; in any thread, and for the last time if it is cut off.
SoFar = Callable[[Outcome | None, str | None], RunResult | None]

# In these nothing of the user's may take longer than it was given.
BOUNDED: frozenset[Stage] = frozenset({"running", "tear-down", "over"})


def _nothing(_outcome: Outcome | None, _where: str | None) -> RunResult | None:
    return None


@dataclass(slots=True)
class UnderWay:
    """
    Where a run is, and what is known of it.

    `facts` are what a result is to say besides; `on_stage` is told of each change of the stage.
    `own_server`: it uses the embedded server, which somebody has to stop.
    """

    stage: Stage = "starting"
    so_far: SoFar = _nothing
    facts: Mapping[str, Any] = field(default_factory=dict)
    on_stage: Callable[[], object] | None = None
    own_server: bool = False

    def enter(self, stage: Stage, so_far: SoFar | None = None) -> None:
        """Note that the run has come to a stage, and from whom its figures are had now."""
        self.stage = stage
        if so_far is not None:
            self.so_far = so_far
        if self.on_stage is not None:
            self.on_stage()

    def result(self, outcome: Outcome | None = None, where: str | None = None) -> RunResult | None:
        """
        Return what is known of the run, None where that is nothing.

        With an outcome it is cut off: what is in flight is counted, and the loop that does it
        must not run any more. `where`: the line that holds it up.
        """
        found = self.so_far(outcome, where)
        return replace(found, **self.facts) if found is not None else None


under_way = UnderWay()
