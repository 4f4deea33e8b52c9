"""What there is to run, who did what, who is asking, and how the service is."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from .desk import Desk, TheDesk
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
from .exposition import exposed
from .guard import COOKIE, LOCAL, session_cookie
from .history import NO_HISTORY
from .problems import Problem, responses
from .runs import shown
from .scenarios import Scenario, read_scenarios
from .tokens import SESSION_SECONDS

router = APIRouter()
# What is answered without a token, too.
open_router = APIRouter()


@router.get("/api/scenarios", tags=["what there is"], summary="List scenarios")
async def scenarios(desk: TheDesk) -> Scenarios:
    """Return the scenarios as their files are now, and what may be overridden at most."""
    found = await asyncio.to_thread(read_scenarios, desk.settings.config_dir)
    return Scenarios(scenarios=[_scenario(each) for each in found.values()], bounds=desk.bounds)


@router.get("/api/targets", tags=["what there is"], summary="List targets")
async def targets(desk: TheDesk) -> Targets:
    """Return the databases that a run can be on, and which are busy."""
    return Targets(
        targets=[
            TargetDocument(
                name=name,
                place=desk.targets.place_of(name),
                run=await desk.history.running_on(name),
            )
            for name in desk.targets.names
        ]
    )


@router.get("/api/audit", tags=["what there is"], responses=responses(422), summary="Audit")
async def audit(
    desk: TheDesk,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Audit:
    """Return who did what, the latest first."""
    rows = await desk.history.notes(before=before, limit=limit)
    entries = [AuditEntry(**{**row, "at": moment(row["at"])}) for row in rows]
    return Audit(entries=entries, next=entries[-1].id if len(entries) == limit else None)


@open_router.get("/api/session", tags=["session"], summary="Who is asking")
async def session(request: Request, desk: TheDesk) -> Session:
    """Return who is asking, for a page to know whether it has to ask for a token."""
    return Session(who=request.state.who, needs_token=desk.tokens.are_needed)


@open_router.post("/api/session", tags=["session"], responses=responses(422), summary="Log in")
async def log_in(login: Login, request: Request, response: Response, desk: TheDesk) -> Session:
    """Take a token and set a cookie, which no script can read and no other site can send."""
    who = desk.tokens.owner_of(login.token) if desk.tokens.are_needed else LOCAL
    if who is None:
        await desk.history.note(f"nobody ({_client(request)})", "login refused")
        raise Problem(401, "this token is not known", headers={"WWW-Authenticate": "Bearer"})
    await desk.history.note(f"{who} ({_client(request)})", "login")
    response.set_cookie(
        COOKIE,
        desk.tokens.open_session(who),
        max_age=int(SESSION_SECONDS),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return Session(who=who, needs_token=desk.tokens.are_needed)


@open_router.post("/api/session/end", tags=["session"], summary="Log out")
async def log_out(request: Request, response: Response, desk: TheDesk) -> Session:
    """Forget the session, and its cookie."""
    if secret := session_cookie(request.headers):
        desk.tokens.close_session(secret)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return Session(
        who=None if desk.tokens.are_needed else LOCAL, needs_token=desk.tokens.are_needed
    )


@open_router.get("/healthz", tags=["health"], summary="Whether the process answers")
async def healthz() -> Health:
    """Return `ok`: the process is there."""
    return Health(status="ok")


@open_router.get(
    "/readyz", tags=["health"], responses=responses(503), summary="Whether it can work"
)
async def readyz(desk: TheDesk) -> Health:
    """Return `ok` where a run can be started; 503 while the service ends or has no history."""
    if desk.runs.draining:
        raise Problem(503, "the service is about to end")
    if not desk.history.held:
        raise Problem(503, "another service may use this history now")
    try:
        async with asyncio.timeout(5):
            await desk.history.ping()
    except NO_HISTORY as error:
        raise Problem(503, f"the history does not answer: {type(error).__name__}") from None
    return Health(status="ok")


@router.get(
    "/metrics",
    tags=["health"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    summary="For Prometheus",
)
async def metrics(desk: TheDesk) -> Response:
    """Return the live runs and the history's counts, in Prometheus' text format."""
    return Response(await _exposed(desk), media_type=CONTENT_TYPE_LATEST)


async def _exposed(desk: Desk) -> bytes:
    counts = await desk.history.count_by_state()
    return exposed(desk.runs.running.values(), counts, desk.watchers.now)


def _scenario(scenario: Scenario) -> ScenarioDocument:
    settings = scenario.settings
    return ScenarioDocument(
        name=scenario.name,
        problem=scenario.problem,
        every=scenario.every,
        on_target=settings.on_target if settings else None,
        settings=shown(settings) if settings else {},
    )


def _client(request: Request) -> str:
    return request.client.host if request.client else "?"
