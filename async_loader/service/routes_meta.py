"""What there is to run, who did what, who is asking, and how the service is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from .documents import (
    MOST_ID,
    Audit,
    AuditEntry,
    Health,
    Login,
    ScenarioDocument,
    Scenarios,
    Session,
    TargetDocument,
    Targets,
    moment,
)
from .exposition import Kept, exposed
from .guard import COOKIE, LOCAL, session_cookie
from .history import NO_HISTORY, brief
from .path_redaction import without_folders
from .problems import Problem, responses
from .runs import shown
from .scenarios import Scenario, read_scenarios
from .scheduling import next_start
from .state import ServiceState, StateDep, prefix_of
from .tokens import SESSION_SECONDS

router = APIRouter()
# What is answered without a token, too.
open_router = APIRouter()


@router.get("/api/scenarios", tags=["what there is"], summary="List scenarios")
async def scenarios(service: StateDep) -> Scenarios:
    """Return the scenarios as their files are now, and what may be overridden at most."""
    found = await asyncio.to_thread(read_scenarios, service.settings.config_dir)
    starts = await service.history.last_starts()
    documents = await asyncio.to_thread(
        lambda: [_scenario(service, each, starts.get(each.name)) for each in found.values()]
    )
    return Scenarios(scenarios=documents, bounds=service.bounds)


@router.get("/api/targets", tags=["what there is"], summary="List targets")
async def targets(service: StateDep) -> Targets:
    """Return the databases that a run can be on, which are busy, and which do not answer."""
    problems = service.health.problems
    return Targets(
        targets=[
            TargetDocument(
                name=name,
                place=service.targets.place_of(name),
                run=await service.history.running_on(name),
                up=None if name not in problems else problems[name] is None,
                problem=problems.get(name),
            )
            for name in service.targets.names
        ]
    )


@router.get("/api/audit", tags=["what there is"], responses=responses(422), summary="Audit")
async def audit(
    service: StateDep,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Audit:
    """Return who did what, the latest first."""
    rows = await service.history.notes(before=before, limit=limit)
    entries = [AuditEntry(**{**row, "at": moment(row["at"])}) for row in rows]
    return Audit(entries=entries, next=entries[-1].id if len(entries) == limit else None)


@open_router.get("/api/session", tags=["session"], summary="Who is asking")
async def session(request: Request, service: StateDep) -> Session:
    """Return who is asking, for a page to know whether it has to ask for a token."""
    return Session(who=request.state.who, needs_token=service.tokens.are_needed)


@open_router.post("/api/session", tags=["session"], responses=responses(422, 429), summary="Log in")
async def log_in(login: Login, request: Request, response: Response, service: StateDep) -> Session:
    """Take a token and set a cookie, which no script can read and no other site can send."""
    who = service.tokens.owner_of(login.token) if service.tokens.are_needed else LOCAL
    if who is None:
        service.refusals.note(_client(request))
        raise Problem(401, "this token is not known", headers={"WWW-Authenticate": "Bearer"})
    await service.history.note(f"{who} ({_client(request)})", "login")
    response.set_cookie(
        COOKIE,
        service.tokens.open_session(who),
        max_age=int(SESSION_SECONDS),
        path=f"{prefix_of(request)}/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return Session(who=who, needs_token=service.tokens.are_needed)


@open_router.post("/api/session/end", tags=["session"], summary="Log out")
async def log_out(request: Request, response: Response, service: StateDep) -> Session:
    """Forget the session, and its cookie."""
    if secret := session_cookie(request.headers):
        service.tokens.close_session(secret)
    response.delete_cookie(COOKIE, path=f"{prefix_of(request)}/", httponly=True, samesite="strict")
    return Session(
        who=None if service.tokens.are_needed else LOCAL, needs_token=service.tokens.are_needed
    )


@open_router.get(
    "/healthz",
    tags=["health"],
    response_model_exclude_none=True,
    summary="Whether the process answers",
)
async def healthz() -> Health:
    """Return `ok`: the process is there."""
    return Health(status="ok")


@open_router.get(
    "/readyz",
    tags=["health"],
    responses=responses(503),
    response_model_exclude_none=True,
    summary="Whether it can work",
)
async def readyz(service: StateDep) -> Health:
    """
    Return `ok` where a run can be started and kept; 503 while the service ends, or where its
    history is away or full. `notes`: targets that do not answer, schedules that cannot start.
    """
    if service.runs.draining:
        raise Problem(503, "the service is about to end")
    if not service.history.held:
        raise Problem(503, "another service may use this history now")
    try:
        async with asyncio.timeout(5):
            await service.history.ping()
    except NO_HISTORY as error:
        why = without_folders(brief(error))
        raise Problem(503, f"the history cannot be written: {why}") from None
    problems = service.scheduler.problems.items()
    notes = [f"scenario {name}: {without_folders(text)}" for name, text in problems]
    notes += [f"target {name}: {text}" for name, text in service.health.problems.items() if text]
    return Health(status="ok", notes=notes or None)


@router.get(
    "/metrics",
    tags=["health"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    summary="For Prometheus",
)
async def metrics(service: StateDep) -> Response:
    """Return live and last runs, targets, schedules and the history's counts, for Prometheus."""
    return Response(await _exposed(service), media_type=CONTENT_TYPE_LATEST)


async def _exposed(service: ServiceState) -> bytes:
    history, problems = service.history, service.health.problems
    kept = Kept(
        counts=await history.count_by_state(),
        last=await history.last_results(),
        targets={name: problem is None for name, problem in problems.items()},
        due=await asyncio.to_thread(_due, service, await history.last_starts()),
    )
    return exposed(service.runs.running.values(), kept, service.watchers.now)


def _due(service: ServiceState, starts: Mapping[str, float]) -> dict[str, float | None]:
    """Return when each schedule is due; blocks."""
    found: dict[str, float | None] = {}
    for name, scenario in read_scenarios(service.settings.config_dir).items():
        if scenario.every is not None:
            can = service.scheduler.problem_of(scenario) is None
            at = next_start(scenario.every, starts.get(name), time.time())
            found[name] = at if can else None
    return found


def _scenario(service: ServiceState, scenario: Scenario, last: float | None) -> ScenarioDocument:
    settings, every, problem = scenario.settings, scenario.every, scenario.problem
    if problem is None:
        problem = service.scheduler.problem_of(scenario)
    is_scheduled = every is not None and problem is None
    return ScenarioDocument(
        name=scenario.name,
        problem=None if problem is None else without_folders(problem),
        can_run=scenario.problem is None,
        every=every,
        last_at=moment(last),
        next_at=moment(next_start(every, last, time.time())) if every and is_scheduled else None,
        on_target=settings.on_target if settings else None,
        settings=shown(settings) if settings else {},
    )


def _client(request: Request) -> str:
    return request.client.host if request.client else "?"
