"""
Operations and hooks as applications have them, one kind of them by the variable KIND.

Each operation is odd where its number is ODD, and a read of nothing else. What the command makes
of it is told in `test_foreign_operations`.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader import OperationContext, Workload

ODD = 7
KIND = os.environ["KIND"]
URL = os.environ.get("SHOP_URL", "postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
engine = create_async_engine(URL)
Session = async_sessionmaker(engine)
kept: list[object] = []
leaking: ContextVar[int] = ContextVar("leaking", default=-1)
Odd = Callable[[OperationContext], Awaitable[object]]
KINDS: dict[str, Odd] = {}


class Abort(BaseException):
    """As gevent's and pytest's own."""


class Base(DeclarativeBase): ...


class Payment(Base):
    __tablename__ = "payment"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Response:
    def __init__(self, status: int) -> None:
        self.status_code = status


def kind(function: Odd) -> Odd:
    KINDS[function.__name__] = function
    return function


async def raising(error: BaseException) -> None:
    raise error


async def nothing() -> None: ...


@kind
async def raises(_op: OperationContext) -> None:
    raise ValueError("wrong")


@kind
async def raises_stop_iteration(_op: OperationContext) -> None:
    raise StopIteration


@kind
async def recurses(op: OperationContext) -> None:
    await recurses(op)


@kind
async def raises_cancelled(_op: OperationContext) -> None:
    raise asyncio.CancelledError


@kind
async def awaits_a_cancelled_task(_op: OperationContext) -> None:
    inner = asyncio.create_task(asyncio.sleep(3600))
    inner.cancel()
    await inner


@kind
async def cancels_itself(_op: OperationContext) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


@kind
async def cancels_all(_op: OperationContext) -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(1)


@kind
async def has_a_thread_cancel_all(_op: OperationContext) -> None:
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    threading.Thread(target=loop.call_soon_threadsafe, args=(cancel,)).start()
    await asyncio.sleep(1)


@kind
async def calls_back_what_fails(_op: OperationContext) -> None:
    asyncio.get_running_loop().call_soon(late_in_a_thread)


@kind
async def exits(_op: OperationContext) -> None:
    sys.exit(0)


@kind
async def exits_in_a_task_group(_op: OperationContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raising(SystemExit(0)))


@kind
async def exits_in_a_thread(_op: OperationContext) -> None:
    await asyncio.to_thread(sys.exit, 0)


@kind
async def exits_in_a_callback(_op: OperationContext) -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 0)


@kind
async def exits_at_once(_op: OperationContext) -> None:
    os._exit(0)


@kind
async def kills_its_process(_op: OperationContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(1)


@kind
async def raises_generator_exit(_op: OperationContext) -> None:
    raise GeneratorExit


@kind
async def raises_its_own(_op: OperationContext) -> None:
    raise Abort("stop")


@kind
async def raises_a_group(_op: OperationContext) -> None:
    raise BaseExceptionGroup("two", [Abort(), Abort()])


@kind
async def interrupts(_op: OperationContext) -> None:
    raise KeyboardInterrupt


@kind
async def stops_the_loop(_op: OperationContext) -> None:
    asyncio.get_running_loop().stop()


@kind
async def returns_a_coroutine(_op: OperationContext) -> object:
    return nothing()


async def rows() -> AsyncIterator[int]:
    yield 1


@kind
async def returns_rows_by_name(_op: OperationContext) -> object:
    return {"total": 1, "rows": rows()}


@kind
async def keeps_a_generator(_op: OperationContext) -> None:
    kept.append(rows())


@kind
async def returns_a_generator(_op: OperationContext) -> object:
    async def rows() -> AsyncIterator[int]:
        yield 1

    return rows()


@kind
async def returns_coroutines(_op: OperationContext) -> object:
    return [nothing(), nothing()]


@kind
async def hides_a_coroutine(_op: OperationContext) -> object:
    return {"rows": (1, [nothing()])}


@kind
async def returns_a_map(_op: OperationContext) -> object:
    return map(raising, [ValueError()])


@kind
async def returns_what_it_did_not_enter(_op: OperationContext) -> object:
    @asynccontextmanager
    async def transaction() -> AsyncIterator[None]:
        yield

    return transaction()


@kind
async def drops_a_coroutine(_op: OperationContext) -> None:
    nothing()  # type: ignore[unused-coroutine]  # the point


@kind
async def keeps_a_coroutine(_op: OperationContext) -> None:
    kept.append(nothing())


@kind
async def returns_503(_op: OperationContext) -> object:
    return Response(503)


@kind
async def returns_404(_op: OperationContext) -> object:
    return Response(404)


class HttpError(Exception):
    """As FastAPI's HTTPException."""

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(f"{status_code}: {detail}")
        self.status_code, self.detail = status_code, detail


@kind
async def raises_404(_op: OperationContext) -> object:
    raise HttpError(404, "Order is gone")


@kind
async def raises_a_token(_op: OperationContext) -> object:
    raise ValueError("401 of https://api/?api_key=k-123, Authorization: Bearer eyJh.eyJz.c2ln")


@kind
async def raises_an_escape_code(_op: OperationContext) -> object:
    raise ValueError("\x1b[2Jred")


@kind
async def raises_a_surrogate(_op: OperationContext) -> object:
    raise FileNotFoundError("no " + os.fsdecode(b"caf\xe9"))


@kind
async def raises_a_huge_message(_op: OperationContext) -> object:
    raise ValueError("token" * 10_000_000)


@kind
async def gathers_exceptions(_op: OperationContext) -> object:
    return await asyncio.gather(raising(KeyError("row")), return_exceptions=True)


@kind
async def leaves_a_task_that_fails(_op: OperationContext) -> None:
    asyncio.create_task(raising(ValueError("late")))  # noqa: RUF006  as applications do


@kind
async def leaves_a_task_that_exits(_op: OperationContext) -> None:
    asyncio.create_task(raising(SystemExit(0)))  # noqa: RUF006  as applications do


async def late() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("late")


def late_in_a_thread() -> None:
    raise ValueError("late")


@kind
async def gathers_and_does_not_wait(_op: OperationContext) -> None:
    asyncio.gather(late(), late())


@kind
async def leaves_to_a_pool_what_fails(_op: OperationContext) -> None:
    asyncio.get_running_loop().run_in_executor(None, late_in_a_thread)


@kind
async def hands_to_its_loop_what_fails(_op: OperationContext) -> None:
    asyncio.run_coroutine_threadsafe(late(), asyncio.get_running_loop())


@kind
async def leaves_a_thread_that_fails(_op: OperationContext) -> None:
    threading.Thread(target=late_in_a_thread).start()


@kind
async def leaves_to_a_pool_what_does_not_end(_op: OperationContext) -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)


@kind
async def leaves_a_task_of_its_own_making(_op: OperationContext) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work, **options: asyncio.Task(work, loop=loop, **options))
    await asyncio.sleep(0.5)
    asyncio.create_task(late())  # noqa: RUF006  as applications do


@kind
async def leaves_a_task_for_ever(_op: OperationContext) -> None:
    kept.append(asyncio.create_task(asyncio.sleep(3600)))


@kind
async def leaves_a_task_for_a_moment(_op: OperationContext) -> None:
    kept.append(asyncio.create_task(asyncio.sleep(0.1)))


@kind
async def hangs(_op: OperationContext) -> None:
    await asyncio.Event().wait()


@kind
async def swallows_its_cancellation(_op: OperationContext) -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@kind
async def swallows_its_cancellation_in_a_session(op: OperationContext) -> None:
    async with Session() as session:
        await session.execute(text("SELECT 1"))
        await swallows_its_cancellation(op)


@kind
async def blocks_the_loop(_op: OperationContext) -> None:
    time.sleep(3600)


@kind
async def holds_the_interpreter(_op: OperationContext) -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


@kind
async def sets_stdout_to_none(_op: OperationContext) -> None:
    sys.stdout = None
    sys.stderr = None  # as a daemon has them


@kind
async def uses_up_descriptors(_op: OperationContext) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))


@kind
async def replaces_its_process(_op: OperationContext) -> None:
    os.execv("/bin/true", ["true"])


@kind
async def forks(_op: OperationContext) -> None:
    if not os.fork():
        os.execv("/bin/true", ["true"])


@kind
async def closes_the_loop(_op: OperationContext) -> None:
    asyncio.get_running_loop().close()


@kind
async def hangs_in_a_thread(_op: OperationContext) -> None:
    await asyncio.to_thread(time.sleep, 3600)


@kind
async def starts_a_thread(_op: OperationContext) -> None:
    threading.Thread(target=time.sleep, args=(3600,)).start()


def ignore(*_: object) -> None: ...


def heed(handler: Callable[..., object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


@kind
async def ignores_signals(_op: OperationContext) -> None:
    heed(ignore)


@kind
async def blocks_signals(_op: OperationContext) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


@kind
async def heeds_signals_by_its_loop(_op: OperationContext) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ignore)


@kind
async def exits_when_it_is_asked(_op: OperationContext) -> None:
    heed(lambda *_: sys.exit(0))


@kind
async def exits_between_two_of_our_lines(_op: OperationContext) -> None:
    """As a signal's handler may, before whichever line of the runner's own it comes to."""
    last = int(os.environ["LINE"])

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        code, lines = frame.f_code, 0

        def at_a_line(_frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal lines
            lines += event == "line"
            if lines > last:
                sys.settrace(None)
                sys.exit(0)
            return at_a_line

        ours = code.co_name == "perform" and code.co_filename.endswith("performing.py")
        return at_a_line if ours else None

    sys.settrace(trace)


@kind
async def exits_at_once_when_it_is_asked(_op: OperationContext) -> None:
    heed(lambda *_: os._exit(0))


@kind
async def does_not_commit(_op: OperationContext) -> None:
    async with Session() as session:
        session.add(Payment(amount=1))
        await session.flush()


async def pay_late(*, commit: bool) -> None:
    await asyncio.sleep(0.1)
    async with Session() as session:
        session.add(Payment(amount=1))
        await session.flush()
        if commit:
            await session.commit()


@kind
async def leaves_a_task_that_does_not_commit(_op: OperationContext) -> None:
    asyncio.create_task(pay_late(commit=False))  # noqa: RUF006  as applications do


@kind
async def leaves_a_task_that_does_not_flush(_op: OperationContext) -> None:
    async def forget() -> None:
        await asyncio.sleep(0.1)
        async with Session() as session:
            session.add(Payment(amount=1))

    asyncio.create_task(forget())  # noqa: RUF006  as applications do


@kind
async def leaves_a_task_that_commits(_op: OperationContext) -> None:
    asyncio.create_task(pay_late(commit=True))  # noqa: RUF006  as applications do


@kind
async def returns_a_session_not_begun(_op: OperationContext) -> object:
    return Session.begin()


@kind
async def does_not_flush(_op: OperationContext) -> None:
    async with Session() as session:
        session.add(Payment(amount=1))


@kind
async def never_closes_its_session(_op: OperationContext) -> None:
    Session().add(Payment(amount=1))


made_before = Session()


@kind
async def adds_to_a_session_made_before(_op: OperationContext) -> None:
    made_before.add_all([Payment(amount=1)])


@kind
async def expunges_what_it_added(_op: OperationContext) -> None:
    async with Session() as session:
        session.add(Payment(amount=1))
        session.expunge_all()


@kind
async def resets_its_session(_op: OperationContext) -> None:
    async with Session() as session:
        session.add(Payment(amount=1))
        await session.reset()


@kind
async def calls_what_writes_and_does_not_commit(_op: OperationContext) -> None:
    async with Session() as session:
        await session.execute(text("SELECT pay()"))


@kind
async def executes_what_it_prepared(_op: OperationContext) -> None:
    async with Session() as session:
        await session.execute(text("PREPARE pay AS INSERT INTO payment (amount) VALUES (1)"))
        await session.execute(text("EXECUTE pay"))
        await session.execute(text("DEALLOCATE pay"))


@kind
async def changes_and_does_not_flush(_op: OperationContext) -> None:
    async with Session() as session:
        payment = await session.get(Payment, 1)
        assert payment is not None
        payment.amount = 2


@kind
async def rolls_back(op: OperationContext) -> None:
    await does_not_commit(op)


@kind
async def swallows_its_error(_op: OperationContext) -> None:
    with suppress(DBAPIError):
        async with Session() as session:
            session.add(Payment(id=1, amount=1))
            await session.commit()


@kind
async def commits_what_is_broken(_op: OperationContext) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO payment (amount) VALUES (1)"))
        with suppress(DBAPIError):
            await connection.execute(text("SELECT 1/0"))
        await connection.commit()


@kind
async def takes_what_is_there(_op: OperationContext) -> None:
    async with Session() as session:
        session.add(Payment(id=1, amount=1))
        try:
            await session.commit()
        except DBAPIError:
            await session.rollback()
            assert await session.get(Payment, 1)


@kind
async def is_given_up_after_a_commit(_op: OperationContext) -> None:
    async with Session.begin() as session:
        session.add(Payment(amount=1))
    await given_up()


@kind
async def is_given_up_once(_op: OperationContext) -> None:
    if not kept:
        kept.append(1)
        await given_up()


async def given_up() -> None:
    async with engine.begin() as connection:
        raised = "DO $$ BEGIN RAISE 'not now' USING ERRCODE = '40001'; END $$"
        await connection.execute(text(raised))


@kind
async def leaves_an_engine_open(_op: OperationContext) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


@kind
async def leaks_a_connection(_op: OperationContext) -> None:
    connection = await engine.connect()
    kept.append(connection)
    await connection.execute(text("SELECT 1"))


workload = Workload("foreign")


@workload.operation("odd", kind="read", rolls_back=KIND == "rolls_back")
async def odd(op: OperationContext) -> object:
    await asyncio.sleep(0)
    assert leaking.get() in (-1, op.index), "what an operation sets is not the next one's"
    leaking.set(op.index)
    if op.index == ODD:
        Path("began").touch()
    return await KINDS[KIND](op) if op.index == ODD and KIND in KINDS else None


In_a_thread = Callable[[], object]
SYNC_KINDS: dict[str, In_a_thread] = {}


def sync_kind(function: In_a_thread) -> In_a_thread:
    SYNC_KINDS[function.__name__.removeprefix("sync_")] = function
    return function


@sync_kind
def sync_hangs() -> None:
    threading.Event().wait()


@sync_kind
def sync_hangs_in_a_call() -> None:
    time.sleep(3600)


@sync_kind
def sync_holds_the_interpreter() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


@sync_kind
def sync_raises() -> None:
    raise ValueError("wrong")


@sync_kind
def sync_exits() -> None:
    sys.exit(0)


@sync_kind
def sync_interrupts() -> None:
    raise KeyboardInterrupt


@sync_kind
def sync_raises_cancelled() -> None:
    raise asyncio.CancelledError


@sync_kind
def sync_returns_a_coroutine() -> object:
    return nothing()


@sync_kind
def sync_drops_a_coroutine() -> None:
    nothing()  # type: ignore[unused-coroutine]  # the point


@sync_kind
def sync_keeps_a_coroutine() -> None:
    kept.append(nothing())


@sync_kind
def sync_returns_a_generator() -> object:
    def rows() -> Iterator[int]:
        yield 1

    return rows()


@sync_kind
def sync_leaves_to_a_pool_what_fails() -> None:
    ThreadPoolExecutor(1).submit(late_in_a_thread)


@sync_kind
def sync_leaves_a_thread_that_fails() -> None:
    threading.Thread(target=late_in_a_thread).start()


@odd.sync
def odd_in_a_thread(op: OperationContext) -> object:
    if op.index == ODD:
        Path("began").touch()
    return SYNC_KINDS[KIND]() if op.index == ODD and KIND in SYNC_KINDS else None


if KIND == "a session of the hook that exits":

    @workload.sessions
    def sessions() -> async_sessionmaker[AsyncSession]:
        sys.exit(0)


if KIND == "an import that exits":
    sys.exit(0)
if KIND == "an import that exits at once":
    os._exit(0)


async def hook(when: str) -> Any:
    what = KIND.removeprefix(f"{when} ") if KIND.startswith(when) else ""
    if what:
        Path("began").touch()
    match what:
        case "exits":
            sys.exit(0)
        case "exits at once":
            os._exit(0)
        case "is cancelled":
            await awaits_a_cancelled_task(None)  # type: ignore[arg-type]  # it does not look
        case "hangs":
            await asyncio.Event().wait()
        case "blocks":
            time.sleep(3600)


@workload.setup
async def prepare() -> None:
    await hook("set-up")


if KIND == "a second set-up":

    @workload.setup
    async def prepare_more() -> None: ...


@workload.teardown
async def clear_up() -> None:
    await hook("tear-down")
