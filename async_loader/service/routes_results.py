"""What runs found: their reports, their charts, and several side by side."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response

from ..reports.forms import COMPARE_FORMS, RUN_FORMS
from ..reports.page_data import chart_data
from ..results.run import RunResult
from ..verdict.regression import compare_with
from .answers import answer_of, in_words, overall, tolerance_of
from .documents import MOST_ID, SCHEMAS, ComparisonDocument, RunSummary
from .problems import Problem, responses
from .state import ServiceState, StateDep

router = APIRouter(prefix="/api", tags=["results"])

Suffix = Literal["html", "json", "xml", "md"]
_FORMS = {"html": "html", "json": "json", "xml": "junit", "md": "markdown"}
_MEDIA = {
    "html": "text/html",
    "json": "application/json",
    "xml": "application/xml",
    "md": "text/markdown",
}
_META_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)"')
Runs = Annotated[
    list[Annotated[int, Query(ge=1, le=MOST_ID)]],
    Query(
        alias="run",
        min_length=2,
        max_length=8,
        description="run=1&run=2",
        json_schema_extra={"uniqueItems": True},
    ),
]


def _files(result: str) -> dict[int | str, dict[str, Any]]:
    """Return what the reports are; the JSON is a result, by the name of its schema."""
    content = {media: {"schema": {"type": "string"}} for media in _MEDIA.values()}
    content["application/json"] = {"schema": {"$ref": f"{SCHEMAS}{result}"}}
    about = "as `--out html=`, `json=`, `junit=` and `markdown=` write it"
    return {200: {"description": about, "content": content}}


@router.get(
    "/runs/{number}/report.{suffix}",
    responses=_files("Result") | responses(404, 409, 422),
    response_class=Response,
    summary="A run's report",
)
async def report(
    number: Annotated[int, Path(ge=1, le=MOST_ID)], suffix: Suffix, service: StateDep
) -> Response:
    """Return the report of a run that has a result: a page, the result, JUnit or Markdown."""
    (result,) = await _results(service, [number])
    return await _rendered(RUN_FORMS[_FORMS[suffix]], result, suffix)


@router.get("/runs/{number}/charts", responses=responses(404, 409, 422), summary="A run's charts")
async def charts(
    number: Annotated[int, Path(ge=1, le=MOST_ID)], service: StateDep
) -> dict[str, Any]:
    """Return what the report's charts draw of a run."""
    (result,) = await _results(service, [number])
    return await asyncio.to_thread(chart_data, {_label(number): [result]})


@router.get("/compare", responses=responses(404, 409, 422), summary="Compare runs")
async def compare(service: StateDep, numbers: Runs) -> ComparisonDocument:
    """Return runs side by side, and of two what changed from the first to the second."""
    results = await _results(service, numbers)
    rows = [await service.history.get(number) for number in numbers]
    ways = {_label(n): [result] for n, result in zip(numbers, results, strict=True)}
    changes, differences = [], []
    answer, within = None, None
    if len(results) == 2:
        found = await asyncio.to_thread(
            compare_with, {_label(numbers[0]): results[0]}, results[1], ()
        )
        changes = [
            {**change.to_dict(), "answer": answer_of(change), "figure": in_words(change)}
            for change in found.changes
        ]
        answer, within = overall(found.changes), tolerance_of(found.changes)
        differences = list(found.differences)
    return ComparisonDocument(
        runs=[RunSummary.of(row) for row in rows if row is not None],
        charts=await asyncio.to_thread(chart_data, ways),
        answer=answer,
        within=within,
        changes=changes,
        differences=differences,
    )


@router.get(
    "/compare/report.{suffix}",
    responses=_files("Results") | responses(404, 409, 422),
    response_class=Response,
    summary="A comparison's report",
)
async def compare_report(service: StateDep, suffix: Suffix, numbers: Runs) -> Response:
    """Return the report of several runs, as `async_loader report` writes it."""
    results = await _results(service, numbers)
    ways = {_label(n): [result] for n, result in zip(numbers, results, strict=True)}
    return await _rendered(COMPARE_FORMS[_FORMS[suffix]], ways, suffix)


async def _results(service: ServiceState, numbers: Sequence[int]) -> list[RunResult]:
    if len(set(numbers)) != len(numbers):
        raise Problem(422, "run: a run is compared with others, not with itself")
    found = []
    for number in numbers:
        document = await service.history.document(number)
        if document is None:
            if number in service.runs.running:
                raise Problem(409, f"run {number} goes on: it has no result yet")
            raise Problem(404, f"there is no result of a run {number}")
        found.append(await asyncio.to_thread(_loaded, document))
    return found


def _loaded(document: bytes) -> RunResult:
    return RunResult.from_dict(json.loads(zlib.decompress(document)))


async def _rendered(render: Callable[[Any], str], what: Any, suffix: Suffix) -> Response:
    text = await asyncio.to_thread(render, what)
    headers = {}
    if suffix == "html" and (policy := _META_POLICY.search(text)):
        # The page's own: the hashes of what is in it. In a sandbox, so that it is nobody's page.
        allowed = policy[1].replace("&#39;", "'")
        headers["Content-Security-Policy"] = f"{allowed}; sandbox allow-scripts"
    return Response(text, media_type=_MEDIA[suffix], headers=headers)


def _label(number: int) -> str:
    return f"run {number}"
