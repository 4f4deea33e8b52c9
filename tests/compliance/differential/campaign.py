"""Many examples: what they found, and what they covered."""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from tests.compliance.differential.comparing import DifferenceError, Observed
from tests.compliance.differential.generation import worlds
from tests.compliance.differential.models import Example
from tests.compliance.differential.operations import steps
from tests.compliance.differential.performing import InvalidModelError, Performer, UnstableError


@st.composite
def examples(draw: Any, *, changes: bool = False) -> Example:
    """Draw a world and what a session does in it."""
    world = draw(worlds())
    return Example(world, draw(steps(world, changes=changes)))


@dataclass
class Failure:
    """A difference, as small as it could be made."""

    at: int  # the example at which it was found
    example: Example
    difference: str


@dataclass
class Tally:
    """What a campaign covered."""

    performed: int = 0
    batched: int = 0  # with at least one statement of ours
    statements: int = 0
    failed: int = 0  # with an error in some step
    jumped: int = 0  # where an error left other numbers than stock's
    unstable: Counter[str] = field(default_factory=Counter)  # stock itself comes out twice
    invalid: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    batched_features: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Leave the collection of garbage, a fifth of the time, to the performer."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Campaign:
    """Performs examples until one differs."""

    def __init__(
        self,
        performer: Performer,
        *,
        only: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        patience: float = 30,
    ) -> None:
        self.performer = performer
        self.only = only
        self.without = without
        self.patience = patience  # seconds to make an example smaller
        self.tally = Tally()
        self._last: tuple[int, Example, str] | None = None
        self._found_at = 0  # also tells that one was found and is made smaller
        self._until = 0.0
        self._different: dict[str, str] = {}

    def run(self, count: int, number: int, *, shrink: bool = True) -> Failure | None:
        """Perform `count` examples of a seed; return the first that differs, made small."""
        self._last, self._found_at, self._different = None, 0, {}
        phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=phases,
            report_multiple_bugs=False,
            print_blob=False,
        )
        @seed(number)
        @given(examples(changes=self.performer.changes))
        def check(example: Example) -> None:
            # From one place, by which Hypothesis tells differences apart.
            difference = self._difference(example)
            if difference is not None:
                raise DifferenceError(difference)

        try:
            with _without_collector():
                check()
        except (DifferenceError, Flaky) as error:
            last: Any = self._last  # set while the examples ran
            at, example, difference = last
            doubt = " (not the second time)" if isinstance(error, Flaky) else ""
            return Failure(at, example, difference + doubt)
        return None

    def _difference(self, example: Example) -> str | None:
        """Perform one, or, while one is made smaller, one that may be smaller."""
        known = self._different.get(example.script)
        if known is not None or (self._found_at and time.monotonic() > self._until):
            return known
        if not self._is_wanted(example):
            reject()
        try:
            stock, batched = self.performer.check(example)
        except InvalidModelError as error:
            self.tally.invalid[str(error)[:100]] += 1
            reject()
        except UnstableError as error:
            self.tally.unstable[str(error)[:100]] += 1
            reject()
        except DifferenceError as error:
            if not self._found_at:
                self._found_at = self.tally.performed + 1
                self._until = time.monotonic() + self.patience
            self._last = (self._found_at, example, str(error))
            self._different[example.script] = str(error)
            return str(error)
        if not self._found_at:
            self._count(example, stock, batched)
        return None

    def _is_wanted(self, example: Example) -> bool:
        features = example.world.features
        if any(word in feature for word in self.without for feature in features):
            return False
        return all(any(word in feature for feature in features) for word in self.only)

    def _count(self, example: Example, stock: Observed, batched: Observed) -> None:
        tally, features = self.tally, example.world.features
        tally.performed += 1
        tally.statements += batched.ours
        tally.batched += batched.ours > 0
        tally.failed += stock.failed
        tally.jumped += batched.jumped
        tally.features.update(features)
        if batched.ours:
            tally.batched_features.update(features)


def report(tally: Tally, *, features: bool = False, file: Any = None) -> None:
    """Print what was covered."""
    out = file or sys.stdout
    print(
        f"{tally.performed} examples, {tally.batched} with batched flushes "
        f"({tally.statements} statements of ours), {tally.failed} with an error in some step "
        f"({tally.jumped} with other numbers after it), "
        f"{sum(tally.invalid.values())} models that nobody can make, "
        f"{sum(tally.unstable.values())} where stock itself comes out in several ways, "
        f"{len(tally.failures)} differences",
        file=out,
        flush=True,
    )
    if features:
        for name, count in sorted(tally.features.items()):
            print(f"  {name:60} {count:6} {tally.batched_features[name]:6} batched", file=out)
        for reason, count in tally.invalid.most_common(20):
            print(f"  invalid {count:5} {reason}", file=out)
