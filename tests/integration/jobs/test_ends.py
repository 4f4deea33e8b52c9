"""What ends a process or its event loop from within a job: the run says by what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from async_loader.errors import JobError
from async_loader.jobs import BatchJob, JobStatus, status
from async_loader.runtime.process import loop_factory
from tests.counting import Counter, fill, tally

ENDS = {
    "exit": "SystemExit(0)",
    "interrupt": "KeyboardInterrupt",
    "cancellation": "CancelledError",
    "close": "GeneratorExit",
}
ROWS, CHUNK, BAD = 40, 10, 15


def made(end: str) -> BaseException:
    """Return the exception: a new one, as it keeps where it has been raised."""
    kinds = {"exit": SystemExit, "interrupt": KeyboardInterrupt, "close": GeneratorExit,
             "cancellation": asyncio.CancelledError}  # fmt: skip
    return kinds[end](*([0] if end == "exit" else []))


@pytest.fixture(autouse=True)
async def counters(engine: AsyncEngine) -> None:
    await fill(engine, ROWS)


def counting(apply: Callable[[AsyncSession, Sequence[Counter]], Any] | None = None) -> BatchJob:
    job = BatchJob("ending", select=select(Counter), chunk=CHUNK, partitions=1)

    @job.apply
    async def count(session: AsyncSession, found: Sequence[Counter]) -> None:
        for counter in found:
            counter.n += 1
        if apply is not None:
            await apply(session, found)

    return job


@contextmanager
def listening(target: Any, name: str, hear: Callable[..., None]) -> Iterator[None]:
    event.listen(target, name, hear)
    try:
        yield
    finally:
        event.remove(target, name, hear)


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("place", ["load", "before_flush", "after_commit"])
async def test_an_end_from_within_a_listener_is_told(
    engine: AsyncEngine, place: str, end: str
) -> None:
    """A listener's `sys.exit()` was the command's, with its exit code and without a word."""
    error, by = made(end), ENDS[end]
    there: set[int] = set()

    def ends_at(counter: Counter) -> None:
        if counter.id == BAD:
            raise error

    def load(counter: Counter, _context: Any) -> None:
        ends_at(counter)

    def before_flush(session: Session, *_: Any) -> None:
        for counter in session.dirty:
            ends_at(counter)

    def after_commit(_session: Session) -> None:
        if BAD in there:
            there.clear()
            raise error

    async def seen(_session: AsyncSession, found: Sequence[Counter]) -> None:
        there.update(counter.id for counter in found)

    listeners: dict[str, Callable[..., None]] = {
        "load": load, "before_flush": before_flush, "after_commit": after_commit,
    }  # fmt: skip
    target = Counter if place == "load" else Session
    with listening(target, place, listeners[place]), pytest.raises(JobError) as caught:
        await counting(seen).run(async_sessionmaker(engine))
    told = str(caught.value)
    assert "application's code at " in told
    innermost = "after_commit" if place == "after_commit" else "ends_at"
    assert f" in {innermost} raised {by}; " in told
    assert "the rows behind id=10 up to id=20" in told
    assert ("rolled back" in told) == (place != "after_commit")
    failed = await status(engine, "ending")
    assert (failed.state, failed.message) == ("failed", told)
    await counting().run(async_sessionmaker(engine))
    assert await tally(engine) == {1: ROWS}


@pytest.mark.parametrize("end", ["exit", "interrupt"])
async def test_an_end_while_the_first_row_is_looked_at(engine: AsyncEngine, end: str) -> None:
    error, by = made(end), ENDS[end]

    def load(_counter: Counter, _context: Any) -> None:
        raise error

    with listening(Counter, "load", load), pytest.raises(JobError) as caught:
        await counting().run(async_sessionmaker(engine))
    assert f"in load raised {by}" in str(caught.value)


async def in_a_child(error: BaseException) -> None:
    async def child() -> None:
        await asyncio.sleep(0)
        raise error

    await asyncio.gather(child(), asyncio.sleep(0.1))


async def in_a_callback(error: BaseException) -> None:
    def callback() -> None:
        raise error

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("end", ["exit", "interrupt"])
@pytest.mark.parametrize("act", [in_a_child, in_a_callback])
@pytest.mark.parametrize("loop", ["asyncio", "auto"])
async def test_who_ends_the_program_s_loop_is_told(
    database_url: str, engine: AsyncEngine, act: Callable[..., Any], end: str, loop: str
) -> None:
    """`asyncio.run` ends with what comes out of a task; no run is left that looks at work."""
    error, by = made(end), ENDS[end]

    async def ends(_session: AsyncSession, found: Sequence[Counter]) -> None:
        if any(counter.id == BAD for counter in found):
            await act(error)

    async def main() -> None:
        own = create_async_engine(database_url, poolclass=NullPool)
        await counting(ends).run(async_sessionmaker(own))

    def program() -> BaseException | None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
                runner.run(main())
        except BaseException as ended:
            return ended
        return None

    assert await asyncio.to_thread(program) is error
    paused = await status(engine, "ending")
    assert (paused.state, paused.tasks) == ("paused", 0)
    assert str(paused.message).startswith(f"{by} at ")
    assert str(paused.message).endswith(", which ended its program")
    assert await tally(engine) == {0: ROWS - CHUNK, 1: CHUNK}
    await counting().run(async_sessionmaker(engine))
    assert await tally(engine) == {1: ROWS}


class OddError(ValueError):
    def __repr__(self) -> str:
        return "an odd error"


@pytest.mark.parametrize("end", [*ENDS, "error"])
async def test_what_shows_progress_and_raises_ends_the_run(engine: AsyncEngine, end: str) -> None:
    """It was heard of by nobody, or ended the program."""
    by = ENDS.get(end, "an odd error")
    begun = asyncio.Event()

    async def waits(_session: AsyncSession, _found: Sequence[Counter]) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    def on_progress(_status: JobStatus) -> None:
        raise OddError if end == "error" else made(end)

    with pytest.raises(JobError) as caught:
        await counting(waits).run(async_sessionmaker(engine), on_progress=on_progress)
    assert str(caught.value) == f"on_progress raised {by}"
    failed = await status(engine, "ending")
    assert (failed.state, failed.message, failed.tasks) == ("failed", str(caught.value), 0)
    assert set(await tally(engine)) <= {0, 1}
    await counting().run(async_sessionmaker(engine))
    assert await tally(engine) == {1: ROWS}
