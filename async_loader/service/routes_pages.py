"""The pages, and the files that they are made of: ours alone, and none made at request time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request, Response

from .problems import Problem

router = APIRouter(include_in_schema=False)

_PAGES = {"/": "index.html", "/history": "history.html", "/compare": "compare.html"}
# A page's own file outranks one of the reports' charts.
_FOLDERS = ("async_loader.reports", "async_loader.service")
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
# Asked for each time, and answered with 304 where nothing changed: an update shows at once.
_CACHE = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its bytes, type and a tag that changes with them."""

    body: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Return the files of the pages, and of the reports' charts, by name."""
    found = {}
    for package in _FOLDERS:
        for file in (files(package) / "page").iterdir():
            kind = _TYPES.get(PurePath(file.name).suffix)
            if kind is not None and file.is_file():
                body = file.read_bytes()
                tag = hashlib.sha256(body).hexdigest()[:32]
                found[file.name] = Asset(body, kind, f'"{tag}"')
    return found


async def page(request: Request) -> Response:
    """Return a page."""
    return _file(request, _PAGES[request.url.path])


for _path in _PAGES:
    router.add_api_route(_path, page, methods=["GET", "HEAD"])


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def file(name: str, request: Request) -> Response:
    """Return a file of a page."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    found = assets().get(name)
    if found is None:
        raise Problem(404, "no such file")
    headers = {"ETag": found.etag, "Cache-Control": _CACHE}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
