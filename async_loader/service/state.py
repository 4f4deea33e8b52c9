"""What the routes work with, and how it is opened and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from ..concurrency.rates import parse_rate
from ..concurrency.tasks import cancel
from ..settings.serve import ServeSettings, by_name
from .documents import Bounds
from .history import History
from .history_database import history_url, open_history
from .refusals import Refusals
from .resuming import Resumed
from .runs import Runs
from .scenarios import read_scenarios
from .scheduling import Scheduler
from .streaming import Watchers
from .target_health import TargetHealth
from .targets import Targets
from .tokens import Tokens


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The parts of a service."""

    settings: ServeSettings
    history: History
    targets: Targets
    runs: Runs
    resumed: Resumed
    tokens: Tokens
    watchers: Watchers
    refusals: Refusals
    scheduler: Scheduler
    health: TargetHealth

    @property
    def bounds(self) -> Bounds:
        """What a request may ask for."""
        return Bounds(
            ops=self.settings.max_ops,
            duration=self.settings.max_duration,
            concurrency=self.settings.max_concurrency,
            rate=parse_rate(self.settings.max_rate),
        )


@asynccontextmanager
async def lifespan(settings: ServeSettings) -> AsyncIterator[ServiceState]:
    """
    Open the history and the targets, see to what a killed service left, and keep the schedules.

    Raises an `AsyncLoaderError` for what cannot be opened, or is wrong.
    """
    await asyncio.to_thread(read_scenarios, settings.config_dir)
    secret = settings.history_url
    url = history_url(secret.get_secret_value() if secret else None)
    async with open_history(url) as history, _targets_of(settings) as targets:
        runs = Runs(history, targets, settings)
        service = ServiceState(
            settings=settings,
            history=history,
            targets=targets,
            runs=runs,
            resumed=Resumed(history, targets, by_name(settings.job)),
            tokens=Tokens(by_name(settings.token)),
            watchers=Watchers(settings.max_watchers),
            refusals=Refusals(history),
            scheduler=Scheduler(history, targets, runs, settings),
            health=TargetHealth(targets),
        )
        await runs.recover()
        await runs.prune()
        scheduling = asyncio.create_task(service.scheduler.keep())
        writing = asyncio.create_task(service.refusals.keep())
        looking = asyncio.create_task(service.health.keep(runs.busy))
        try:
            yield service
        finally:
            await cancel(scheduling, writing, looking)
            await runs.drain()
            await service.resumed.drain()
            await service.refusals.write()


def _targets_of(settings: ServeSettings) -> Targets:
    return Targets(settings.targets, settings.server_directory)


def _state_of(request: Request) -> ServiceState:
    service: ServiceState = request.app.state.service
    return service


def _who_of(request: Request) -> str:
    who: str | None = request.state.who
    client = request.client.host if request.client else "?"
    return f"{who or 'nobody'} ({client})"


def prefix_of(request: Request) -> str:
    """Return the path that a proxy has the service under; empty for none."""
    prefix: str = request.state.prefix
    return prefix


# Says so in the OpenAPI document; it is the guard that looks.
BEARER = HTTPBearer(auto_error=False, description="a token of --token, where there are any")

StateDep = Annotated[ServiceState, Depends(_state_of)]
Who = Annotated[str, Depends(_who_of)]
Prefix = Annotated[str, Depends(prefix_of)]
