"""
The HTTP API, for people and for the pages in `page/`.

**Runs.** `GET /api/scenarios` (with `bounds`) and `GET /api/targets` say what there is to start.
`POST /api/runs {"scenario": "smoke", "target": "staging", "overrides": {"duration": 30}}` starts a
run: 201 with the run, or a problem; 409's `run` is the one that is on the target.
`GET /api/runs?scenario=&target=&state=&before=&limit=` lists them, the latest first: `next` is the
next page's `before`. `GET /api/runs/{id}` is one in full, `POST /api/runs/{id}/stop` lets no more
operations start; asked again, it does not wait for those in flight either.

`state`: `running` and `stopping` go on; `passed`, `not measured`, `failed`, `stopped` are the
verdict of a run that has a result, with its `reasons`; `error`: it could not be run; `interrupted`:
the service died.

**Events.** `new EventSource("/api/runs/{id}/events")` gets named events:

    phase     {"phase": "connecting"}           also "running" and "cleaning up"
    snapshot  the state of the run, once a second: `SnapshotDocument`
    note      {"note": "process 2 died"}        what went wrong meanwhile
    end       {"state": "passed", "reasons": []}      the last; close the source then

A source that was cut off comes back by itself and goes on behind the last event it has seen
(Last-Event-ID); what happened meanwhile comes at once. A comment line every 10 s says that the
line is there: without anything for longer, what is shown is stale.

**Results.** `/api/runs/{id}/report.html|json|xml|md` is the report, `/api/runs/{id}/charts` what
`page_data.chart_data` makes of one run for `charts.js`, `/api/compare?run=1&run=2` the same of
several (`charts`) with their figures' changes and one `answer` (`worse`, `better`, `the same`,
`cannot tell`), `/api/compare/report.html?run=1&run=2` as a page.

**Jobs.** `GET /api/jobs/{target}`, `GET /api/jobs/{target}/{run}`, and `POST .../pause`, `/resume`,
`/cancel` answer with how the run stands.

**Who.** `GET /api/session` says who asks and whether a token is needed. A page that needs one posts
`{"token": ...}` to `/api/session` and gets a cookie that scripts cannot read and other sites cannot
send; `POST /api/session/end` ends it. Each POST of a page carries the header `X-Async-Loader: 1`
(and `Content-Type: application/json` with a body): `fetch(url, {method: "POST", headers, body})`.

**Errors** are `application/problem+json`: `title`, `status`, `detail`, and `errors` by field.

**Pages.** `/`, `/history` and `/compare` are `page/index.html`, `history.html` and `compare.html`;
all other files of `page/`, and the reports' `charts.js`, `figures.js` and `uPlot`, are under
`/page/NAME`. No inline script or style: the policy is `script-src 'self'; style-src 'self'`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, get_args

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from ..results.form import definitions_of
from ..verdict.document import DOCUMENTS, OPEN
from . import problems, routes_jobs, routes_meta, routes_pages, routes_results, routes_runs
from .answers import Answer
from .documents import SCHEMAS
from .state import BEARER, ServiceState

# What the guard, or a defect, may answer whatever is asked.
_ANYWHERE = problems.responses(400, 401, 403, 408, 413, 421, 429, 500, 503)


def make_app(service: ServiceState) -> FastAPI:
    """Return the application, which the guard is to stand before."""
    app = FastAPI(
        title="async_loader",
        version=version("async_loader"),
        summary="Start, watch and compare load runs.",
        description=__doc__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # it loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=_ANYWHERE,
    )
    app.state.service = service
    problems.install(app)
    needed = [Depends(BEARER)] if service.tokens.are_needed else []
    for routes in (routes_runs, routes_results, routes_jobs, routes_meta):
        app.include_router(routes.router, dependencies=needed)
    for router in (routes_meta.open_router, routes_pages.router):
        app.include_router(router)
    app.openapi = lambda: _openapi(app, service)  # type: ignore[method-assign]  # FastAPI's own way
    return app


def _openapi(app: FastAPI, service: ServiceState) -> dict[str, Any]:
    """Return the OpenAPI document, with what problems and results are, and with its bounds."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
        )
        schemas = document["components"]["schemas"]
        _, results = definitions_of(*DOCUMENTS, more=OPEN, where=f"{SCHEMAS}{{name}}")
        assert not results.keys() & schemas.keys(), "two things of one name"
        schemas |= results
        schemas["AnsweredChange"] = _answered(results["Change"])
        template = f"{SCHEMAS}{{model}}"
        problem = problems.ProblemDocument.model_json_schema(ref_template=template)
        schemas |= problem.pop("$defs")
        schemas["ProblemDocument"] = problem
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        overrides = schemas["Overrides"]["properties"]
        for name, most in service.bounds.model_dump().items():
            overrides[name]["anyOf"][0]["maximum"] = most
        app.openapi_schema = document
    return app.openapi_schema


def _answered(change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a change with its answer, and with what its figure is called."""
    added = {"answer": {"enum": list(get_args(Answer))}, "figure": {"type": "string"}}
    return {
        **change,
        "title": "AnsweredChange",
        "properties": {**change["properties"], **added},
        "required": [*change["required"], *added],
    }
