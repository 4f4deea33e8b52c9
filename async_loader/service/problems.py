"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ..errors import AsyncLoaderError, ConfigurationError, DatabaseError, JobError
from .history import NO_HISTORY, TargetBusyError
from .path_redaction import without_folders
from .scenarios import UnknownScenarioError

log = logging.getLogger("async_loader.service")

_METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")
MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    problem: str


class ProblemDocument(BaseModel):
    """What went wrong. `run`: of a conflict, the run that is on the target."""

    model_config = ConfigDict(extra="forbid")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    run: int | None = None
    errors: list[FieldProblem] | None = Field(None, description="of a request with wrong fields")


class Problem(Exception):  # noqa: N818  RFC 9457's name for it
    """An answer that is an error."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def answer(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return the response for a problem."""
    document = ProblemDocument(
        title=HTTPStatus(status).phrase, status=status, detail=detail, **more
    )
    return JSONResponse(
        document.model_dump(exclude_none=True), status, headers, media_type=MEDIA_TYPE
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's documentation says of these."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Have an application answer with problems."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(AsyncLoaderError, _on_ours)
    for kind in NO_HISTORY:
        app.add_exception_handler(kind, _on_no_history)
    app.add_exception_handler(Exception, _on_defect)


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return answer(error.status, error.detail, headers=error.headers)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_methods(request))}
    return answer(error.status_code, str(error.detail), headers=headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes of a path: the router tells those of the first, or none."""
    found = {
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Without what was sent: it may be anything.
    errors = [
        FieldProblem(field=".".join(map(str, found["loc"])), problem=found["msg"])
        for found in error.errors()
    ]
    return answer(422, "the request is not what the API takes", errors=errors)


async def _on_ours(_request: Request, error: Exception) -> JSONResponse:
    said = without_folders(str(error))
    match error:
        case TargetBusyError():
            return answer(409, said, run=error.run)
        case UnknownScenarioError():
            return answer(404, said)
        case ConfigurationError():
            return answer(422, said)
        case JobError():
            return answer(409, said)
        case DatabaseError():
            return answer(502, said)
    return answer(503, said)


async def _on_no_history(_request: Request, error: Exception) -> JSONResponse:
    log.warning("the history does not answer: %s", type(error).__name__)
    return answer(503, "the history does not answer", headers={"Retry-After": "1"})


async def _on_defect(_request: Request, _error: Exception) -> JSONResponse:
    # The server logs it.
    return answer(500, "a defect of the service; its log has more")
