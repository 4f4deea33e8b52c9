"""Batch jobs over HTTP: list, status, pause, resume, cancel."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path

from ..errors import JobError
from ..jobs import JobStatus, control
from .documents import MOST_ID, JobDocument, Jobs, Name
from .path_redaction import discreet
from .problems import Problem, responses
from .state import ServiceState, StateDep, Who

router = APIRouter(prefix="/api/jobs/{target}", tags=["jobs"])

JobRun = Annotated[int, Path(ge=1, le=MOST_ID, description="the number of a job's run")]
_SEEN = responses(404, 422, 502)
_MOVED = responses(404, 409, 422, 502)


@router.get("", responses=_SEEN, summary="List job runs")
async def list_jobs(target: Name, service: StateDep) -> Jobs:
    """Return the runs of all jobs on a target, the latest first."""
    _check(service, target)
    async with service.targets.engine(target) as engine:
        return Jobs(jobs=[_document(service, found) for found in await control.list_runs(engine)])


@router.get("/{number}", responses=_SEEN, summary="Look at a job run")
async def get_job(target: Name, number: JobRun, service: StateDep) -> JobDocument:
    """Return how far a job's run is."""
    return _document(service, await _status(service, target, number))


@router.post("/{number}/pause", responses=_MOVED, summary="Pause")
async def pause(target: Name, number: JobRun, service: StateDep, who: Who) -> JobDocument:
    """Pause a run: no chunk of it is committed until it is resumed. 409: it is not active."""
    await _status(service, target, number)
    async with service.targets.engine(target) as engine:
        status = await control.pause(engine, str(number))
    # Behind it: a line says what was done.
    await service.history.note(who, "job pause", detail=f"{number} on {target}")
    return _document(service, status)


@router.post("/{number}/cancel", responses=_MOVED, summary="Cancel")
async def cancel(target: Name, number: JobRun, service: StateDep, who: Who) -> JobDocument:
    """Give a run up for good; what was committed stays. 409: it is not active."""
    await _status(service, target, number)
    async with service.targets.engine(target) as engine:
        status = await control.cancel(engine, str(number))
    # Behind it: a line says what was done.
    await service.history.note(who, "job cancel", detail=f"{number} on {target}")
    return _document(service, status)


@router.post("/{number}/resume", status_code=202, responses=_MOVED, summary="Resume")
async def resume(target: Name, number: JobRun, service: StateDep, who: Who) -> JobDocument:
    """Go on with a run, in a process of its own. 409: it has ended, or its code is not known."""
    status = await _status(service, target, number)
    await service.resumed.resume(target, status, by=who)
    return _document(service, await _status(service, target, number))


async def _status(service: ServiceState, target: str, number: int) -> JobStatus:
    _check(service, target)
    async with service.targets.engine(target) as engine:
        try:
            return await control.status(engine, str(number))
        except JobError:
            raise Problem(404, f"no run {number} of a job on {target!r}") from None


def _check(service: ServiceState, target: str) -> None:
    if target not in service.targets:
        raise Problem(404, f"no target {target!r}")


def _document(service: ServiceState, status: JobStatus) -> JobDocument:
    return JobDocument(
        **discreet(asdict(status)),
        rate=status.rate,
        eta_seconds=status.eta_seconds,
        can_resume=service.resumed.knows(status.job),
    )
