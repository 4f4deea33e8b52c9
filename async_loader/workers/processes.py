"""Workers that are processes of this machine, each behind a pool of one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Self, TypeVar

from ..concurrency.tasks import answer_of
from ..errors import WorkerLostError
from . import inside
from .contract import Arrived, Message, Worked, encoded
from .ends import killed_by

T = TypeVar("T")

OnMessage = Callable[[int, Arrived], object]

# Beyond what a worker itself waits for when its line is cut.
_PATIENCE = 8.0


class ProcessWorkers:
    """
    `Workers` on this machine. A pool each: a shared one breaks for all when one is killed.

    They begin with a fresh interpreter (spawn): a fork would copy the coordinator's event
    loop, connections and threads.
    """

    def __init__(self, number: int, on_message: OnMessage) -> None:
        self.names: Sequence[str] = tuple(f"process {n + 1}" for n in range(number))
        self._on_message = on_message
        self._workers: list[_Process] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._workers = [_Process(name) for name in self.names]
        try:
            with _signals_held_back():  # until they are told to ignore them
                started = [worker.submit(inside.ready) for worker in self._workers]
            for worker, future in zip(self._workers, started, strict=True):
                worker.process = _child(await answer_of(future))
            for index, worker in enumerate(self._workers):
                loop.add_reader(worker.pipe.fileno(), self._read, index)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            loop.remove_reader(worker.pipe.fileno())
            worker.hang_up()
        await asyncio.to_thread(_await_all, self._workers)

    def submit(self, index: int, function: Worked[T], *args: Any) -> Future[T]:
        """See `Workers.submit`."""
        return self._workers[index].submit(inside.call, function, args)

    def tell(self, index: int, message: Message | Arrived) -> None:
        """See `Workers.tell`."""
        self._workers[index].tell(message)

    def give_up(self, index: int) -> None:
        """See `Workers.give_up`."""
        process = self._workers[index].process
        if process is not None:
            process.kill()

    def clock_offset_ns(self, index: int) -> int:  # noqa: ARG002  the same clock for all
        """See `Workers.clock_offset_ns`."""
        return 0

    def _read(self, index: int) -> None:
        pipe = self._workers[index].pipe
        try:
            while pipe.poll():
                self._on_message(index, json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):  # it has died, which its future tells
            asyncio.get_running_loop().remove_reader(pipe.fileno())


class _Process:
    """One process, its pool of one, and our end of its line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.pipe, theirs = get_context("spawn").Pipe()
        self._theirs: Connection | None = theirs
        self.process: BaseProcess | None = None
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("spawn"),
            initializer=inside.begin,
            initargs=(name, theirs, os.getpid()),
        )

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Call the function in the process."""
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()
        try:
            called = self._pool.submit(function, *args)
        except BrokenProcessPool:
            answer.set_exception(self._lost())
            return answer
        if self._theirs is not None:
            self._theirs.close()  # the process has its own: ours would hide its death from us
            self._theirs = None

        def pass_on(called: Future[T]) -> None:
            error = called.exception()
            if error is None:
                answer.set_result(called.result())
            else:
                answer.set_exception(
                    self._lost() if isinstance(error, BrokenProcessPool) else error
                )

        called.add_done_callback(pass_on)
        return answer

    def tell(self, message: Message | Arrived) -> None:
        """Send a message to the process, if it is still there."""
        with suppress(OSError):
            self.pipe.send_bytes(encoded(message))

    def hang_up(self) -> None:
        """Have the process end: at once where it does nothing, else soon."""
        self.pipe.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Wait for the end of the process; kill it when that takes too long."""
        if self.process is not None:
            self.process.join(_PATIENCE)
            if self.process.exitcode is None:
                self.process.kill()
        self._pool.shutdown()

    def _lost(self) -> WorkerLostError:
        code = None
        if self.process is not None:
            self.process.join(1)  # its pool sees the end before it is known
            code = self.process.exitcode
        how = "died" if code is None else killed_by(code) or f"ended with {code}"
        return WorkerLostError(self._name, how)


def end_tracker() -> None:
    """
    End the process that `multiprocessing` keeps beside spawned ones, and wait for its end.

    It would end by itself behind this one, when whoever waits for us looks already.
    """
    stop = getattr(resource_tracker, "_resource_tracker", None)
    stop = getattr(stop, "_stop", None)  # no public way to it; Python 3.13 has it at its own end
    if stop is not None:
        with suppress(OSError):
            stop()


def _await_all(workers: Sequence[_Process]) -> None:
    for worker in workers:
        worker.wait()


def _child(pid: int) -> BaseProcess | None:
    """Return our child of this id."""
    return next((child for child in active_children() if child.pid == pid), None)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block what a terminal sends to all: what is started here begins with it blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, inside.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
