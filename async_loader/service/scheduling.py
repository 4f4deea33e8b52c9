"""Scenarios that the service runs by itself: `every = "1d"`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from ..errors import AsyncLoaderError
from ..settings.serve import ServeSettings
from .history import NO_HISTORY, History, TargetBusyError
from .runs import Runs
from .scenarios import Scenario, read_scenarios
from .targets import Targets

log = logging.getLogger("async_loader.service")

_LOOK_EVERY = 5.0
# Runs grow old where none is started, too.
_PRUNE_EVERY = 3600.0


def next_start(every: float, last: float | None, now: float) -> float:
    """
    Return when a scenario is due next: at once where it was never started.

    A start that lies ahead was made while the clock was; it counts as one of now.
    """
    return now if last is None else min(last, now) + every


def due(scenarios: Mapping[str, Scenario], starts: Mapping[str, float], now: float) -> list[str]:
    """
    Return the scenarios whose time has come, by when each was started last.

    Of the starts missed while nobody was there, one is made up.
    """
    return [
        name
        for name, scenario in scenarios.items()
        if scenario.every is not None and next_start(scenario.every, starts.get(name), now) <= now
    ]


class Scheduler:
    """Starts what is due; a scenario whose target is busy waits for it."""

    def __init__(
        self, history: History, targets: Targets, runs: Runs, settings: ServeSettings
    ) -> None:
        self._history = history
        self._targets = targets
        self._runs = runs
        self._settings = settings
        self._complained: dict[str, str] = {}
        self._pruned = time.monotonic()

    async def keep(self) -> None:
        """Look again and again, until cancelled; no defect ends the schedules."""
        while True:
            try:
                await self.look()
                await self._prune()
            except (AsyncLoaderError, *NO_HISTORY) as error:
                self._complain("", error)
            except Exception:
                log.exception("the schedules met a defect, and go on")
            await asyncio.sleep(_LOOK_EVERY)

    async def look(self) -> None:
        """Start what is due now."""
        scenarios = await asyncio.to_thread(read_scenarios, self._settings.config_dir)
        now, starts = time.time(), await self._history.last_starts()
        for name in [name for name, at in starts.items() if at > now]:
            await self._history.set_last_start(name, now)
        for gone in self._complained.keys() - scenarios.keys() - {""}:
            del self._complained[gone]
        await asyncio.to_thread(self._check_all, scenarios.values())
        for name in due(scenarios, starts, now):
            try:
                target = self._target_of(scenarios[name])
                await self._runs.start(name, target, {}, by="schedule", scheduled=True)
            except TargetBusyError:
                continue
            except AsyncLoaderError as error:
                self._complain(name, error)

    def problem_of(self, scenario: Scenario) -> str | None:
        """Return why a schedule cannot start its scenario; None without one, and where it can."""
        if scenario.every is None:
            return None
        try:
            self._runs.check(scenario, self._target_of(scenario))
        except AsyncLoaderError as error:
            return f"its schedule cannot start it: {error}"
        return None

    @property
    def problems(self) -> dict[str, str]:
        """Why scenarios could not be started when they were looked at last, by their names."""
        return {name: text for name, text in self._complained.items() if name}

    def _check_all(self, scenarios: Iterable[Scenario]) -> None:
        """Say of each schedule whether it can start what it is for; blocks."""
        for scenario in scenarios:
            if problem := self.problem_of(scenario):
                self._complain(scenario.name, problem)
            else:
                self._complained.pop(scenario.name, None)

    async def _prune(self) -> None:
        """Have the history forget what is too old, once in a while."""
        if time.monotonic() - self._pruned >= _PRUNE_EVERY:
            await self._runs.prune()
            self._pruned = time.monotonic()

    def _target_of(self, scenario: Scenario) -> str:
        """Return the target that a scenario names, or the only one there is."""
        named = scenario.settings.on_target if scenario.settings else None
        names = self._targets.names
        if named is None and len(names) == 1:
            return names[0]
        if named is None or named not in self._targets:
            which = "there is none" if named is None else f"there is no target {named!r}"
            raise AsyncLoaderError(f"on_target: {which}; the targets are {', '.join(names)}")
        return named

    def _complain(self, name: str, error: Exception | str) -> None:
        """Say what is the matter, once."""
        if self._complained.get(name) != str(error):
            self._complained[name] = str(error)
            log.warning("schedule %s: %s", name, error)
