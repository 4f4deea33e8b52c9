"""What operations of somebody else's do, and what the runner makes of it: without a database."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from async_loader import (
    ConfigurationError,
    Limit,
    OperationContext,
    RunResult,
    SetupError,
    Workload,
    run,
)
from async_loader.errors import TeardownError
from async_loader.load.runner import in_flight, preparation, thread_flights
from async_loader.load.runner.sync_runner import run_sync
from async_loader.load.specs.run import RunSpec

Operation = Callable[[OperationContext], Awaitable[object]]
OPS = 40
ODD = 7


class Abort(BaseException):
    """As gevent's and pytest's own."""


async def performed(function: Operation, *, kind: Any = "read", **options: Any) -> RunResult:
    """Run an operation, which is odd where its number is."""
    workload = Workload("foreign")

    @workload.operation("only", kind=kind)
    async def only(op: OperationContext) -> object:
        await asyncio.sleep(0)
        return await function(op) if op.index == ODD else None

    result = await run(workload, ops=OPS, concurrency=4, **{"op_timeout": 5.0, **options})
    assert result.not_started == 0
    assert result.completed + result.failed + result.indeterminate == OPS
    return result


def the_failure(result: RunResult) -> str:
    assert result.failed == 1
    (name,) = result.errors
    return name


async def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError("not yours"),
        SystemExit(0),
        GeneratorExit(),
        Abort("stop"),
        StopAsyncIteration(),
        BaseExceptionGroup("of several", [Abort()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["read", "write"])
async def test_whatever_is_raised_is_one_failed_operation(error: BaseException, kind: str) -> None:
    result = await performed(lambda _op: raising(error), kind=kind)
    expected = Abort if isinstance(error, BaseExceptionGroup) else type(error)
    assert the_failure(result).startswith(expected.__name__)
    assert result.outcome == "done"


async def test_a_keyboard_interrupt_ends_the_run_with_its_result() -> None:
    workload = Workload("foreign")

    @workload.operation("only", kind="read")
    async def only(op: OperationContext) -> None:
        if op.index == ODD:
            raise KeyboardInterrupt

    result = await run(workload, ops=OPS, concurrency=1)
    assert result.outcome == "interrupted"
    assert (result.completed, result.failed) == (ODD, 1)
    assert result.not_started == OPS - ODD - 1


async def test_a_task_of_its_own_that_is_cancelled() -> None:
    async def awaits_a_cancelled_one(_op: OperationContext) -> None:
        inner = asyncio.create_task(asyncio.sleep(3600))
        inner.cancel()
        await inner

    assert the_failure(await performed(awaits_a_cancelled_one)) == "CancelledError"


async def test_one_that_cancels_itself() -> None:
    async def cancels_itself(_op: OperationContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    assert the_failure(await performed(cancels_itself)) == "CancelledError"


async def test_one_that_swallows_its_cancellation_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "CLOSING", 0.1)
    monkeypatch.setattr(in_flight, "LET_GO", 0.2)
    over = asyncio.Event()

    async def stubborn(_op: OperationContext) -> None:
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    result = await performed(stubborn, op_timeout=0.1)
    over.set()
    assert the_failure(result) == "abandoned"
    assert "test_foreign_operations.py" in (result.errors["abandoned"].source or "")
    assert "in stubborn" in result.errors["abandoned"].sample


async def test_one_that_swallows_its_cancellation_and_ends_counts_as_it_ended() -> None:
    async def late(_op: OperationContext) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return

    assert (await performed(late, op_timeout=0.1)).failed == 0


class Response:
    def __init__(self, status: int) -> None:
        self.status_code = status


async def unawaited() -> None: ...


async def generator() -> AsyncIterator[int]:
    yield 1


async def returning(value: Callable[[], object]) -> object:
    return value()


async def dropping(_op: OperationContext) -> None:
    unawaited()  # type: ignore[unused-coroutine]  # the point


@pytest.mark.parametrize(
    ("value", "failure"),
    [
        (unawaited, "not awaited"),
        (generator, "not awaited"),
        (lambda: [unawaited()], "not awaited"),
        (lambda: Response(503), "HTTP 503"),
        (lambda: (Response(200), Response(500)), "HTTP 500"),
        (lambda: [None, ValueError("gathered")], "ValueError"),
    ],
    ids=["coroutine", "async generator", "list of them", "503", "one of two", "exception"],
)
async def test_what_is_returned_may_say_that_the_work_is_not_done(
    value: Callable[[], object], failure: str
) -> None:
    assert the_failure(await performed(lambda _op: returning(value))) == failure


@pytest.mark.parametrize("value", [Response(404), 503, "text", object(), [1, 2]])
async def test_what_is_returned_else_is_its_own_business(value: object) -> None:
    assert (await performed(lambda _op: returning(lambda: value))).failed == 0


@pytest.mark.parametrize(
    "value",
    [
        lambda: {"saved": unawaited()},
        lambda: {unawaited()},
        lambda: (1, [[unawaited()]]),
        lambda: [*range(100), unawaited()],
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_coroutine_deep_in_what_is_returned(value: Callable[[], object]) -> None:
    result = await performed(lambda _op: returning(value))
    assert the_failure(result) == "not awaited"


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_coroutine_that_is_dropped() -> None:
    result = await performed(dropping)
    assert the_failure(result) == "not awaited"
    assert "unawaited" in result.errors["not awaited"].sample


async def test_coroutines_that_are_kept_and_never_awaited() -> None:
    """Counted once, for the operation that names them; those of before the run are not its own."""
    kept = [unawaited()]
    workload = Workload("mine")

    @workload.operation("keeps", kind="read")
    async def keeps(op: OperationContext) -> None:
        if op.index % 4 == 0 or op.index < 0:
            kept.append(unawaited())

    @workload.operation("other", kind="read", weight=0.1)
    async def other() -> None: ...

    result = await run(workload, ops=40, warmup=Limit(ops=3), concurrency=2)
    found = result.by_operation
    warming = result.warm_up.failed if result.warm_up is not None else 0
    assert found["keeps"].failed == len(kept) - 1 - warming > 5
    assert warming > 0
    assert found["other"].failed == 0
    assert sum(o.count + o.failed for o in found.values()) == 40
    assert "unawaited" in result.errors["not awaited"].sample
    for one in kept:
        one.close()


async def test_a_status_may_be_declared_to_be_right() -> None:
    workload = Workload("maintenance")

    @workload.operation("page", kind="read", failing_status=None)
    async def page() -> Response:
        return Response(503)

    assert (await run(workload, ops=3)).failed == 0


async def test_a_background_task_that_fails_fails_its_operation() -> None:
    async def leaves_one(_op: OperationContext) -> None:
        task = asyncio.create_task(raising(ValueError("nobody looks")))
        await asyncio.sleep(0.01)
        del task

    result = await performed(leaves_one)
    assert the_failure(result) == "background task: ValueError"


async def test_a_background_task_that_somebody_keeps_fails_its_operation() -> None:
    """As asyncio's documentation has it: a set of them, of which nobody asks what became."""
    kept: set[asyncio.Task[None]] = set()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("late")

    async def leaves(op: OperationContext) -> None:
        kept.update(asyncio.create_task(fails()) for _ in range(3))

    result = await performed(leaves)
    assert (result.completed, result.failed) == (OPS - 1, 1)
    assert the_failure(result) == "background task: ValueError"


async def test_a_task_that_was_awaited_is_not_in_the_background() -> None:
    kept: set[asyncio.Task[None]] = set()

    async def fails() -> None:
        raise ValueError("seen")

    async def asks(op: OperationContext) -> None:
        task = asyncio.create_task(fails())
        kept.add(task)
        await asyncio.wait([task])
        assert task.exception() is not None

    result = await performed(asks)
    assert (result.completed, result.failed) == (OPS, 0)


async def test_an_operation_that_fails_is_counted_once_whatever_it_leaves_behind() -> None:
    async def fails() -> None:
        raise ValueError("soon")

    async def leaves(op: OperationContext) -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0.01)
        del task
        gc.collect()
        raise KeyError("its own")

    result = await performed(leaves)
    assert (result.completed, result.failed) == (OPS - 1, 1)
    assert the_failure(result) == "KeyError"


async def test_a_background_task_has_its_time_and_is_cut_off_then() -> None:
    left: list[asyncio.Task[None]] = []

    async def leaves_two(op: OperationContext) -> None:
        left.append(asyncio.create_task(asyncio.sleep(0.05)))
        left.append(asyncio.create_task(asyncio.sleep(3600)))

    result = await performed(leaves_two, grace=0.2)
    assert the_failure(result) == "background task cut off"
    assert not left[0].cancelled()
    assert left[1].cancelled()


variable: ContextVar[int] = ContextVar("variable", default=-1)


async def test_nothing_of_an_operation_reaches_the_next() -> None:
    workload = Workload("leaking")
    tasks: list[object] = []

    @workload.operation("only", kind="read")
    async def only(op: OperationContext) -> None:
        assert variable.get() == -1
        variable.set(op.index)
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        assert variable.get() == op.index

    result = await run(workload, ops=100, concurrency=3)
    assert result.completed == 100
    assert len(set(map(id, tasks))) == 100


@pytest.mark.parametrize("hook", ["setup", "teardown"])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(0), Abort()])
async def test_a_hook_that_ends_in_whatever_way_is_named(hook: str, error: BaseException) -> None:
    workload = Workload("prepared")

    @workload.operation("only", kind="read")
    async def only() -> None: ...

    @getattr(workload, hook)  # type: ignore[untyped-decorator]  # by its name
    async def prepare() -> None:
        raise error

    expected = SetupError if hook == "setup" else TeardownError
    with pytest.raises(expected, match=type(error).__name__) as raised:
        await run(workload, ops=10)
    assert "test_foreign_operations.py" in str(raised.value)
    if isinstance(raised.value, TeardownError):
        assert raised.value.result.completed == 10


async def test_a_tear_down_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "CLOSING", 0.1)
    workload = Workload("queue")
    over = asyncio.Event()

    @workload.operation("only", kind="read")
    async def only() -> None: ...

    @workload.teardown
    async def wait_for_the_queue() -> None:
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    with pytest.raises(TeardownError, match="in wait_for_the_queue") as raised:
        await run(workload, ops=10, op_timeout=0.1, grace=0.1)
    over.set()
    assert raised.value.result.completed == 10


@pytest.mark.parametrize("role", ["setup", "teardown", "sessions"])
def test_a_second_hook_is_refused(role: str) -> None:
    workload = Workload("twice")

    async def hook() -> None: ...

    def sessions() -> None: ...

    function: Any = sessions if role == "sessions" else hook
    getattr(workload, role)(function)
    with pytest.raises(ConfigurationError, match="already"):
        getattr(workload, role)(function)


def test_the_noop_is_not_isolated() -> None:
    from async_loader.load.workloads import noop

    assert [o.isolated for o in noop.build().operations.values()] == [False]


# --- what is left in the background ---------------------------------------------------------------

kept: list[Any] = []


async def late() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("late")


def late_in_a_thread() -> None:
    raise ValueError("late")


async def gathers_and_forgets() -> None:
    asyncio.gather(late(), late())


async def gathers_and_keeps() -> None:
    kept.append(asyncio.gather(late(), late()))


async def leaves_it_to_a_pool() -> None:
    asyncio.get_running_loop().run_in_executor(None, late_in_a_thread)


async def leaves_it_to_a_pool_and_keeps() -> None:
    kept.append(asyncio.get_running_loop().run_in_executor(None, late_in_a_thread))


async def leaves_it_to_a_pool_of_its_own() -> None:
    concurrent.futures.ThreadPoolExecutor(1).submit(late_in_a_thread)


async def leaves_it_to_the_loop_from_a_pool() -> None:
    loop = asyncio.get_running_loop()

    def hand_over() -> None:
        asyncio.run_coroutine_threadsafe(late(), loop)

    await loop.run_in_executor(None, hand_over)


async def leaves_it_to_the_loop_and_keeps() -> None:
    loop = asyncio.get_running_loop()
    kept.append(asyncio.run_coroutine_threadsafe(late(), loop))


async def starts_a_thread() -> None:
    threading.Thread(target=late_in_a_thread).start()


async def makes_tasks_its_own_way() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work, **options: asyncio.Task(work, loop=loop, **options))
    await asyncio.sleep(0.5)
    kept.append(loop.create_task(late()))


async def takes_errors_its_own_way() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await asyncio.sleep(0.5)
    asyncio.create_task(late())  # noqa: RUF006  as applications do


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "leave",
    [
        gathers_and_forgets,
        gathers_and_keeps,
        leaves_it_to_a_pool,
        leaves_it_to_a_pool_and_keeps,
        leaves_it_to_a_pool_of_its_own,
        leaves_it_to_the_loop_from_a_pool,
        leaves_it_to_the_loop_and_keeps,
        starts_a_thread,
        makes_tasks_its_own_way,
        takes_errors_its_own_way,
    ],
)
async def test_what_fails_in_the_background(leave: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    result = await performed(lambda _op: leave())
    kept.clear()
    loop.set_exception_handler(None)
    loop.set_task_factory(None)
    what = "thread" if leave is starts_a_thread else "task"
    assert the_failure(result) == f"background {what}: ValueError"


async def test_a_task_factory_that_was_there_before() -> None:
    loop = asyncio.get_running_loop()
    made: list[object] = []

    def theirs(loop: Any, work: Any, **options: Any) -> Any:
        made.append(work)
        return asyncio.Task(work, loop=loop, **options)

    async def leaves_a_task(_op: OperationContext) -> None:
        asyncio.create_task(late())  # noqa: RUF006  as applications do

    loop.set_task_factory(theirs)
    result = await performed(leaves_a_task)
    assert loop.get_task_factory() is theirs
    loop.set_task_factory(None)
    assert made
    assert the_failure(result) == "background task: ValueError"


async def test_what_is_still_at_work_in_a_pool_is_cut_off() -> None:
    over = threading.Event()

    async def leaves_it(_op: OperationContext) -> None:
        asyncio.get_running_loop().run_in_executor(None, over.wait)

    result = await performed(leaves_it, grace=0.1)
    over.set()
    assert the_failure(result) == "background task cut off"


async def asks_a_gathering() -> None:
    await asyncio.gather(late(), late(), return_exceptions=True)


async def asks_a_pool() -> None:
    with contextlib.suppress(ValueError):
        await asyncio.get_running_loop().run_in_executor(None, late_in_a_thread)


async def asks_a_pool_of_its_own() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(late_in_a_thread)
        assert asked.exception() is not None


async def asks_the_loop_from_a_pool() -> None:
    loop = asyncio.get_running_loop()

    def hand_over() -> None:
        with contextlib.suppress(ValueError):
            asyncio.run_coroutine_threadsafe(late(), loop).result()

    await asyncio.to_thread(hand_over)


async def leaves_to_a_pool_what_goes_well() -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)


@pytest.mark.parametrize(
    "leave",
    [
        asks_a_gathering,
        asks_a_pool,
        asks_a_pool_of_its_own,
        asks_the_loop_from_a_pool,
        leaves_to_a_pool_what_goes_well,
    ],
)
async def test_what_was_asked_for_is_no_failure(leave: Callable[[], Awaitable[None]]) -> None:
    before = vars(concurrent.futures.Future).copy()
    result = await performed(lambda _op: leave())
    assert (result.failed, result.completed) == (0, OPS)
    assert vars(concurrent.futures.Future) == before


# --- work that was only begun to be asked for -----------------------------------------------------


def rows() -> Iterator[int]:
    yield 1


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[None]:
    yield


@contextlib.contextmanager
def sync_transaction() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: map(len, ["a"]), "a map"),
        (lambda: filter(None, ["a"]), "a filter"),
        (rows, "a generator (rows)"),
        (transaction, "a context manager (transaction)"),
        (sync_transaction, "a context manager (sync_transaction)"),
        (lambda: [transaction()], "a context manager (transaction)"),
    ],
)
async def test_what_does_nothing_by_itself(make: Callable[[], object], said: str) -> None:
    async def returns_it(_op: OperationContext) -> object:
        return make()

    result = await performed(returns_it)
    assert the_failure(result) == "not awaited"
    assert f"returned {said}, of which nothing was done" in result.errors["not awaited"].sample


async def test_what_has_been_iterated_or_entered(caplog: pytest.LogCaptureFixture) -> None:
    async def returns_it(_op: OperationContext) -> object:
        iterated, entered = rows(), transaction()
        list(iterated)
        async with entered:
            pass
        return [iterated, entered]

    assert (await performed(returns_it)).failed == 0


# --- the sync modes -------------------------------------------------------------------------------


def performed_in_threads(function: Callable[[], object], **options: Any) -> RunResult:
    workload = Workload("foreign")

    @workload.operation("only", kind="read")
    async def only(op: OperationContext) -> None: ...

    @only.sync
    def only_sync(op: OperationContext) -> object:
        return function() if op.index == ODD else None

    spec = RunSpec.of(**{"ops": OPS, "op_timeout": 5.0, **options})
    result = run_sync(workload, spec, sessions=None, threads=4)
    assert result.not_started == 0
    assert result.completed + result.failed + result.indeterminate == OPS
    return result


def drops_a_coroutine() -> None:
    late()  # type: ignore[unused-coroutine]  # the point


def hides_a_coroutine() -> object:
    return {"it": [late()]}


def submits_and_forgets() -> None:
    concurrent.futures.ThreadPoolExecutor(1).submit(late_in_a_thread)


def submits_and_keeps() -> None:
    kept.append(concurrent.futures.ThreadPoolExecutor(1).submit(late_in_a_thread))


def starts_one_that_fails() -> None:
    thread = threading.Thread(target=late_in_a_thread)
    thread.start()
    thread.join()
    time.sleep(0.2)  # it is noted while the operation goes on


def exits() -> None:
    raise SystemExit(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine 'late' was never awaited")
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (drops_a_coroutine, "not awaited"),
        (late, "not awaited"),
        (hides_a_coroutine, "not awaited"),
        (rows, "not awaited"),
        (exits, "SystemExit"),
        (submits_and_forgets, "background task: ValueError"),
        (submits_and_keeps, "background task: ValueError"),
        (starts_one_that_fails, "background thread: ValueError"),
    ],
)
async def test_in_threads(function: Callable[[], object], name: str) -> None:
    result = await asyncio.to_thread(performed_in_threads, function)
    kept.clear()
    assert the_failure(result) == name


async def test_a_thread_that_hangs_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_flights, "CLOSING", 0.1)
    monkeypatch.setattr(thread_flights, "LET_GO", 0.2)
    over = threading.Event()
    result = await asyncio.to_thread(performed_in_threads, over.wait, op_timeout=0.1)
    over.set()
    assert the_failure(result) == "abandoned"


async def test_in_threads_what_is_at_work_in_the_background_is_cut_off() -> None:
    over = threading.Event()

    def submits() -> None:
        concurrent.futures.ThreadPoolExecutor(1).submit(over.wait)

    result = await asyncio.to_thread(performed_in_threads, submits, grace=0.1)
    over.set()
    assert the_failure(result) == "background task cut off"


async def test_threads_of_which_none_succeeds_give_up() -> None:
    workload = Workload("foreign")

    @workload.operation("only", kind="read")
    async def only() -> None: ...

    @only.sync
    def only_sync() -> None:
        time.sleep(0.001)
        raise ValueError

    spec = RunSpec.of(duration=600.0, give_up=0.5, op_timeout=0.1)
    result = await asyncio.to_thread(run_sync, workload, spec, sessions=None)
    assert result.outcome == "aborted"
