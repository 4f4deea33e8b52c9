"""What is kept of a run's settings and surroundings, as far as its readers look at it."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from .annotations import Share


class Settings(TypedDict, total=False):
    """The options, by name; these are what reports look at, and there are more."""

    label: str | None
    threshold: list[str]
    max_error_rate: Share
    require_valid: bool
    latency_limit: float | None
    duration: float | None
    concurrency: int
    rate: str | None
    stage: list[str]


class Machine(TypedDict):
    """What it ran on."""

    platform: str
    cpus: int | None
    loop: Literal["uvloop", "asyncio"]


class _Server(TypedDict):
    product: str
    version: str
    where: str
    url: str | None
    settings: dict[str, str]


class Database(_Server, total=False):
    """The server, without a password."""

    kept: Annotated[str, Meta(description="the schema, which was not dropped")]


class Environment(TypedDict, total=False):
    """When and on what it ran, in a result of the command's."""

    started: Annotated[str, Meta(description="ISO 8601, UTC")]
    versions: dict[str, str]
    machine: Machine
    database: Database
