"""Runs over HTTP: start, list, look, watch, stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from .documents import MOST_ID, Name, RunDocument, RunList, RunRequest, RunSummary
from .history import Filter, State
from .live import ENDED, ended, event_number
from .problems import Problem, responses
from .state import Prefix, ServiceState, StateDep, Who
from .streaming import EventStream

router = APIRouter(prefix="/api/runs", tags=["runs"])

RunId = Annotated[int, Path(ge=1, le=MOST_ID, description="the run's number")]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "`phase`, `snapshot` (once a second), `note` and, as the last, `end`",
    },
    204: {"description": "the watcher has seen the end: there is nothing more to come"},
}


@router.post(
    "",
    status_code=201,
    responses=responses(404, 409, 422),
    summary="Start a run",
)
async def start(
    request: RunRequest, response: Response, service: StateDep, who: Who, prefix: Prefix
) -> RunDocument:
    """
    Start a run of a scenario on a target and return it, as `Location` does.

    One at a time on a target: 409 names in `run` the one that goes on. 422 is for overrides
    beyond the bounds, or that do not go with the scenario.
    """
    if request.target not in service.targets:
        raise Problem(404, f"no target {request.target!r}")
    overrides = request.overrides.values()
    _check_bounds(service, request.overrides.model_dump(exclude_none=True))
    number = await service.runs.start(request.scenario, request.target, overrides, by=who)
    response.headers["Location"] = f"{prefix}/api/runs/{number}"
    return await _run(service, number)


@router.get("", responses=responses(422), summary="List runs")
async def list_runs(  # noqa: PLR0917  FastAPI names them
    service: StateDep,
    scenario: Annotated[Name | None, Query()] = None,
    target: Annotated[Name | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID, description="older than")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> RunList:
    """Return a page of runs, the latest first."""
    rows = await service.history.page(
        Filter(scenario=scenario, target=target, state=state, before=before, limit=limit)
    )
    following = rows[-1]["id"] if len(rows) == limit else None
    return RunList(runs=[RunSummary.of(row) for row in rows], next=following)


@router.get("/{number}", responses=responses(404, 422), summary="Look at a run")
async def get_run(number: RunId, service: StateDep) -> RunDocument:
    """Return a run as it is now."""
    return await _run(service, number)


@router.get(
    "/{number}/events",
    responses=_EVENTS | responses(404, 422),
    response_class=StreamingResponse,
    summary="Watch a run",
)
async def watch(
    number: RunId,
    service: StateDep,
    last_event_id: Annotated[
        str | None, Header(description="the `id` of the last event that the watcher has seen")
    ] = None,
) -> Response:
    """
    Send what a run tells, from its start or from behind an event, until its end.

    Of a run that has ended only `end` is sent; who has seen that gets 204, which tells an
    EventSource not to come again.
    """
    running = service.runs.running.get(number)
    if running is None:
        row = await _row(service, number)
        if last_event_id == ENDED:
            return Response(status_code=204)
        return Response(ended(row["state"], row["reasons"]), media_type="text/event-stream")
    return EventStream(running.live.watch(event_number(last_event_id)), service.watchers)


@router.post("/{number}/stop", status_code=202, responses=responses(404, 409, 422), summary="Stop")
async def stop(number: RunId, service: StateDep, who: Who) -> RunDocument:
    """
    Ask a run to end: no more operations start, and those in flight have its `grace`.

    Asked again, it does not wait for them either. 409: it has ended.
    """
    if not await service.runs.stop(number, by=who):
        await _row(service, number)
        raise Problem(409, f"run {number} has ended")
    return await _run(service, number)


async def _run(service: ServiceState, number: int) -> RunDocument:
    running = service.runs.running.get(number)
    return RunDocument.of_run(await _row(service, number), running.live if running else None)


async def _row(service: ServiceState, number: int) -> Mapping[str, Any]:
    row = await service.history.get(number)
    if row is None:
        raise Problem(404, f"no run {number}")
    return row


def _check_bounds(service: ServiceState, asked: Mapping[str, Any]) -> None:
    for name, most in service.bounds.model_dump().items():
        if asked.get(name, 0) > most:
            raise Problem(422, f"overrides.{name}: at most {most:g} on this server")
