"""The workers of a Dask cluster as `Workers`: each call pinned to one, and never begun twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self, TypeVar
from uuid import uuid4

from msgspec import to_builtins

from ...concurrency.tasks import answer_of
from ...errors import AsyncLoaderError, ClusterError, WorkerLostError
from ..contract import Arrived, Message, Worked
from ..shipping import Shipped
from . import inside
from .inside import Answer, Ticket
from .joining import Cluster, Member
from .opaque import OpaquePickle

T = TypeVar("T")

OnMessage = Callable[[int, Arrived], object]

# How often the scheduler is asked who is still there, and how long its answer may take.
_LOOK = 0.5
_SCHEDULER_PATIENCE = 15.0
# For a call to begin that only says whether what is to be run can be imported.
_BUSY = 30.0
# What a call is given to end by itself when nobody wants its answer any more.
_LAST_SECONDS = 8.0


class DaskWorkers:
    """
    `Workers` on a cluster, all that it had when it was joined.

    Dask would give the task of a worker that has died to another one: a task here is pinned,
    dropped when its worker is gone, and refused by whatever process comes in its place. A
    call is performed on a thread of the Dask worker's, which lives on: what does not heed the
    end of its coordinator goes on there.

    `shipped` goes to all of them first; a worker that cannot import it is named.
    """

    def __init__(
        self, cluster: Cluster, on_message: OnMessage, *, shipped: Shipped | None = None
    ) -> None:
        self.names: Sequence[str] = tuple(member.name for member in cluster.members)
        self._cluster = cluster
        self._on_message = on_message
        self._shipped = shipped
        self._topic = f"async_loader-{uuid4().hex}"
        self._workers: list[_Worker] = []
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        client = self._cluster.client
        self._workers = [_Worker(client, member) for member in self._cluster.members]
        client.subscribe_topic(self._topic, self._hear)
        self._watching = asyncio.create_task(self._watch())
        try:
            await self._ship()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*(worker.end() for worker in self._workers))
        if self._watching is not None:
            self._watching.cancel()
        self._cluster.client.unsubscribe_topic(self._topic)

    def submit(self, index: int, function: Worked[T], *args: Any) -> Future[T]:
        """See `Workers.submit`."""
        return self._workers[index].submit(index, self._topic, function, args)

    def tell(self, index: int, message: Message | Arrived) -> None:
        """See `Workers.tell`."""
        self._workers[index].tell(message)

    def give_up(self, index: int) -> None:
        """See `Workers.give_up`: a cluster's processes are its own."""

    def clock_offset_ns(self, index: int) -> int:
        """See `Workers.clock_offset_ns`."""
        return self._cluster.members[index].offset_ns

    def _hear(self, event: tuple[float, Any]) -> None:
        _, content = event
        self._on_message(content["index"], content["message"])

    async def _ship(self) -> None:
        """Have every worker import what is to be run; raises an error that names one that can't."""
        calls = [
            answer_of(self.submit(index, inside.arrive, self._shipped))
            for index in range(len(self.names))
        ]
        await asyncio.wait(calls, timeout=_BUSY)
        for name, call in zip(self.names, calls, strict=True):
            if not call.done():
                raise ClusterError(
                    f"{name} has begun nothing for {_BUSY:g} s: is it at other work?"
                )
            error = call.exception()
            if isinstance(error, WorkerLostError | ClusterError):
                raise error
            if isinstance(error, AsyncLoaderError):
                raise type(error)(f"{name}: {error}") from error
            if error is not None:
                raise ClusterError(f"{name}: {type(error).__name__}: {error}") from error

    async def _watch(self) -> None:
        """Ask the scheduler who is there, and lose whoever is not."""
        client, addresses = self._cluster.client, [m.address for m in self._cluster.members]
        clock = asyncio.get_running_loop().time
        heard = clock()
        while clock() - heard < _SCHEDULER_PATIENCE:
            await asyncio.sleep(_LOOK)
            with suppress(Exception):  # whatever it is, the scheduler has not answered
                async with asyncio.timeout(_SCHEDULER_PATIENCE):
                    there = await client.nthreads(workers=addresses)
                heard = clock()
                for worker in self._workers:
                    if worker.member.address not in there:
                        worker.lose("has left the cluster")
        for worker in self._workers:
            worker.lose("is out of reach: its scheduler does not answer")


class _Worker:
    """One of them: its call, which reaches no other, and what goes down to it."""

    def __init__(self, client: Any, member: Member) -> None:
        self.member = member
        self._client = client
        self._lost: WorkerLostError | None = None
        self._call = uuid4().hex  # what is said before a call is for the next one
        self._answer: Future[Any] | None = None
        self._task: Any = None
        self._following: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    def submit(
        self, index: int, topic: str, function: Worked[T], args: tuple[Any, ...]
    ) -> Future[T]:
        """Call the function there."""
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()
        if self._lost is not None:
            answer.set_exception(self._lost)
            return answer
        ticket = Ticket(self._call, self.member.process, index, self.member.name, topic)
        # As `Client.get_executor` does, whose futures cannot be dropped by an asyncio client.
        self._task = self._client.submit(
            inside.perform,
            ticket,
            OpaquePickle((function, args)),
            key=f"async_loader-{ticket.call}",
            pure=False,
            workers=[self.member.address],
            allow_other_workers=False,
            retries=0,
        )
        self._answer = answer
        self._following = asyncio.create_task(self._follow(self._task, answer))
        return answer

    async def _follow(self, task: Any, answer: Future[Any]) -> None:
        """Wait for the end of a task, and answer with what it found."""
        try:
            found: Answer = await task
        except asyncio.CancelledError:  # by us, who have answered, or by Dask
            self.lose("was lost by Dask")
            return
        except Exception as error:
            if _is_dasks_own(error):
                self.lose("was lost by Dask")
            elif not answer.done():
                answer.set_exception(error)
            return
        self._call = uuid4().hex
        if answer.done():
            return
        if found.refused:
            self.lose("was started again")
        elif found.error is not None:
            answer.set_exception(found.error.load())
        else:
            assert found.value is not None
            answer.set_result(found.value.load())

    def lose(self, how: str) -> None:
        """Take it for dead: nothing is asked of it any more, and what was is dropped."""
        if self._lost is not None:
            return
        self._lost = WorkerLostError(self.member.name, how)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._lost)
        if self._task is not None:
            self._task.release()
        if self._following is not None:
            self._following.cancel()

    def tell(self, message: Message | Arrived | None) -> None:
        """Send a message, after those before it."""
        if self._lost is None:
            self._telling = asyncio.create_task(self._tell(self._telling, self._call, message))

    async def _tell(
        self, before: asyncio.Task[None] | None, call: str, message: Message | Arrived | None
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        # Who does not get it is dead or dying, which is seen elsewhere.
        with suppress(Exception):
            await self._client.run(
                inside.deliver,
                call,
                to_builtins(message),
                workers=[self.member.address],
                on_error="ignore",
            )

    async def end(self) -> None:
        """Have a call end; what takes too long is given up."""
        if self._answer is not None and not self._answer.done():
            self.tell(None)
            await asyncio.wait({answer_of(self._answer)}, timeout=_LAST_SECONDS)
        self.lose("was left")


def _is_dasks_own(error: BaseException | None) -> bool:
    """Whether a task ended by no doing of its function's."""
    return error is not None and type(error).__module__.partition(".")[0] == "distributed"
