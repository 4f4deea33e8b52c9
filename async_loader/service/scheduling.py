"""Scenarios that the service runs by itself: `every = "1d"`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

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


def due(scenarios: Mapping[str, Scenario], starts: Mapping[str, float], now: float) -> list[str]:
    """
    Return the scenarios whose time has come, by when each was started last.

    One that was never started is due; of those missed while nobody was there, one is made up.
    """
    return [
        name
        for name, scenario in scenarios.items()
        if scenario.every is not None and now - starts.get(name, -scenario.every) >= scenario.every
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
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
                await self._prune()
            except (AsyncLoaderError, *NO_HISTORY) as error:
                self._complain("", error)
            await asyncio.sleep(_LOOK_EVERY)

    async def look(self) -> None:
        """Start what is due now."""
        scenarios = await asyncio.to_thread(read_scenarios, self._settings.config_dir)
        starts = await self._history.last_starts()
        for name in due(scenarios, starts, time.time()):
            try:
                await self._runs.start(
                    name, self._target_of(scenarios[name]), {}, by="schedule", scheduled=True
                )
            except TargetBusyError:
                continue
            except AsyncLoaderError as error:
                self._complain(name, error)

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
            raise AsyncLoaderError(f"on_target of {scenario.name}: the targets are {names}")
        return named

    def _complain(self, name: str, error: Exception) -> None:
        """Say what is the matter, once."""
        if self._complained.get(name) != str(error):
            self._complained[name] = str(error)
            log.warning("schedule %s: %s", name, error)
