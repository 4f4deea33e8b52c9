"""A Dask cluster that a run can use: its scheduler answers, and all its workers are fit."""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...errors import ClusterError, ConfigurationError, MissingExtraError
from . import inside
from .identity import Identity, identity

CONNECT_TIMEOUT = 10.0
_LOCAL = re.compile(r"local:([1-9]\d{0,2})")
_REMOTE = re.compile(r"(tcp|tls|ws|wss)://[^\s/@]+:\d{1,5}")
# Of so many questions the one that was answered soonest tells the clock best.
_QUESTIONS = 8


def cluster_address(value: str) -> str:
    """Return the value if it can name a cluster; else `ValueError`."""
    if not _LOCAL.fullmatch(value) and not _REMOTE.fullmatch(value):
        raise ValueError(
            "a cluster is its scheduler, tcp://HOST:PORT or tls://HOST:PORT, or local:N"
        )
    return value


def is_local(address: str) -> bool:
    """Whether a cluster is one that we start on this machine."""
    return _LOCAL.fullmatch(address) is not None


@dataclass(frozen=True, slots=True)
class Member:
    """One worker of a cluster; `offset_ns`: what its clock is ahead of ours."""

    address: str
    process: str
    offset_ns: int

    @property
    def name(self) -> str:
        """Its name, for people."""
        return f"worker {self.address}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A client of Dask's, and the workers that there were when it came."""

    client: Any
    scheduler: str
    members: tuple[Member, ...]


@asynccontextmanager
async def joined(address: str) -> AsyncIterator[Cluster]:
    """
    Yield the cluster of a scheduler, or one that lives for the block (`local:N`).

    TLS is as Dask's own configuration has it. Raises `ClusterError` where nobody answers, no
    worker is there, or one of them has not this very package; `MissingExtraError` without Dask.
    """
    MissingExtraError.unless_installed("distributed", "`cluster`", "cluster")
    async with AsyncExitStack() as stack:
        stack.enter_context(_dask_is_quiet())
        if local := _LOCAL.fullmatch(address):
            server: Any = await stack.enter_async_context(_local_cluster(int(local[1])))
            address = server.scheduler_address
        else:
            server = address
        client = await stack.enter_async_context(_client(server, address))
        if local:  # a terminal's Ctrl-C goes to all, and is ours to heed
            await client.run(inside.ignore_interrupts)
        yield Cluster(client, address, await _members(client, address))


@asynccontextmanager
async def _client(server: Any, address: str) -> AsyncIterator[Any]:
    from distributed import Client  # noqa: PLC0415  an extra, and slow to import

    client: Any = Client(  # type: ignore[no-untyped-call]  # Dask's
        server, asynchronous=True, set_as_default=False, timeout=CONNECT_TIMEOUT
    )
    try:
        await _connected(client, address)
        yield client
    finally:
        await client.close()


async def _connected(client: Any, address: str) -> None:
    try:
        await client
    except (OSError, TimeoutError):
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {CONNECT_TIMEOUT:g} s: is it running? "
            "(`cluster`)"
        ) from None
    except (ValueError, TypeError) as error:  # what Dask says of its own configuration
        raise ConfigurationError(f"`cluster` {address}: {error}") from None


@asynccontextmanager
async def _local_cluster(number: int) -> AsyncIterator[Any]:
    """Yield a cluster of processes here: on the loopback, without a dashboard, not restarted."""
    import dask  # noqa: PLC0415
    from distributed import LocalCluster  # noqa: PLC0415

    with dask.config.set({"distributed.worker.profile.enabled": False}):
        starting: Any = LocalCluster(  # type: ignore[no-untyped-call]  # Dask's
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=None,
            silence_logs=logging.CRITICAL,
            asynchronous=True,
        )
        cluster = await starting
    try:
        for nanny in cluster.workers.values():
            nanny.auto_restart = False
        yield cluster
    finally:
        await cluster.close()


@contextmanager
def _dask_is_quiet() -> Iterator[None]:
    """Keep Dask from writing between our lines: what a user must know of it, we say."""
    import distributed  # noqa: F401, PLC0415  it sets its loggers up when it is imported

    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


async def _members(client: Any, scheduler: str) -> tuple[Member, ...]:
    addresses = sorted(await client.nthreads())
    if not addresses:
        raise ClusterError(f"the cluster at {scheduler} has no worker")
    ours = identity()
    await _check_scheduler(client, scheduler)
    found = await _on_each(client, addresses, pkgutil.resolve_name, f"{inside.__name__}:here")
    for address in addresses:
        _check(f"worker {address}", _difference(found[address], None, ours))
    identities = await _on_each(client, addresses, inside.here)
    for address in addresses:
        _check(f"worker {address}", _difference(None, identities[address], ours))
    offsets = await asyncio.gather(
        *(clock_offset(partial(_now_at, client, address)) for address in addresses)
    )
    return tuple(
        Member(address, identities[address].process, offset)
        for address, offset in zip(addresses, offsets, strict=True)
    )


async def _on_each(
    client: Any, addresses: list[str], function: Callable[..., Any], *args: Any
) -> Mapping[str, Any]:
    """Return what a function returns, or what it raised, on each of the workers."""
    found = await client.run(function, *args, workers=addresses, on_error="return")
    return {address: found.get(address) for address in addresses}


async def _check_scheduler(client: Any, scheduler: str) -> None:
    """Raise `ClusterError` unless the scheduler, which unpickles tasks, can do so with ours."""
    try:
        await client.run_on_scheduler(pkgutil.resolve_name, f"{inside.__name__}:here")
    except ImportError as error:
        _check(f"the scheduler {scheduler}", _difference(error, None, identity()))


def _difference(error: object, theirs: object, ours: Identity) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name == "async_loader":
        return "no async_loader"
    if isinstance(error, ImportError):
        return f"another version of async_loader than this one ({ours.version})"
    if isinstance(error, Exception):
        return f"an async_loader that cannot be used: {type(error).__name__}: {error}"
    if theirs is None:
        return None
    assert isinstance(theirs, Identity)
    return theirs.difference(ours)


def _check(who: str, difference: str | None) -> None:
    if difference is not None:
        raise ClusterError(f"{who} has {difference}: install the same on all machines")


async def _now_at(client: Any, address: str) -> int:
    return int((await client.run(inside.now_ns, workers=[address]))[address])


async def clock_offset(
    ask: Callable[[], Awaitable[int]], now_ns: Callable[[], int] = time.time_ns
) -> int:
    """
    Return how many nanoseconds a clock is ahead of ours; 0 where that cannot be told from none.

    By the exchange with the shortest round trip, whose half the error is below (Cristian,
    "Probabilistic clock synchronization", 1989).
    """
    exchanges = []
    for _ in range(_QUESTIONS):
        asked = now_ns()
        theirs = await ask()
        trip = now_ns() - asked
        exchanges.append((trip, theirs - asked - trip // 2))
    trip, offset = min(exchanges)
    return offset if abs(offset) > trip // 2 else 0
