"""The parts of a result's document that are about the process: its loop, its cores, its leaks."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from .document_types import Count, EncodedHistogram, Milliseconds, Share, Summary, exact


@exact
class Cores(TypedDict):
    """Who had the machine's cores, in shares of the time; null where it does not tell."""

    ran: Annotated[Share, Field(description="the event loop's thread had a core")]
    waited: Annotated[Share | None, Field(description="it was ready, and had none")]
    stolen: Share | None
    throttled: Share | None
    pressure: Share | None
    others: Annotated[float | None, Field(ge=0, description="cores that other processes used")]
    cores: Annotated[int, Field(ge=1)]
    busiest: Annotated[list[str], Field(description="names, and the cores that each used")]


@exact
class Blocking(TypedDict):
    """A line that kept the event loop for itself."""

    operation: Annotated[str | None, Field(description="null: a task or callback beside them")]
    source: str
    times: Count
    total_ms: Milliseconds
    longest_ms: Milliseconds


@exact
class LoopProfile(TypedDict):
    """Samples of the event loop's thread; null where none was sampled."""

    samples: Count
    busy: Annotated[int, Field(ge=0, description="in which it ran something")]
    owners: Annotated[dict[str, Count], Field(description="whose code that was")]
    functions: Annotated[dict[str, Count], Field(description="the application's own")]
    blocking: list[Blocking]


@exact
class Leak(TypedDict):
    """Connections that an operation has taken and not given back."""

    operation: str
    source: Annotated[str, Field(description="the line that took them")]
    connections: Count
    collected: Annotated[int, Field(ge=0, description="nobody referred to them any more")]
    in_transaction: Count


@exact
class Process(TypedDict):
    """The loader's own process, which must not be what was measured."""

    cpu_seconds: Annotated[float, Field(ge=0)]
    peak_memory_bytes: Count
    loop_busy: Annotated[Share, Field(description="of the time the event loop ran")]
    loop_lag_ms: Summary
    loop_lag_histogram: EncodedHistogram
    processes: Annotated[int, Field(ge=1)]
    machine: NotRequired[Cores | None]
