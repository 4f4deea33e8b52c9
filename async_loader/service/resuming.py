"""Jobs that go on in processes of the service, because somebody resumed them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from ..concurrency.tasks import answer_of
from ..errors import AsyncLoaderError, JobError
from ..jobs import JobStatus
from ..jobs.states import ACTIVE
from ..jobs.targets import SHIPPED
from ..workers import Halt, ProcessWorkers
from .history import History
from .targets import Targets
from .work import resume_job

log = logging.getLogger("async_loader.service")


# How long a chunk that has begun is waited for at the service's end.
_CHUNK = 30.0


class Resumed:
    """
    The jobs that this service works on, one process each.

    A job that ships is known by its name, others by what the server's configuration says.
    """

    def __init__(self, history: History, targets: Targets, jobs: Mapping[str, str]) -> None:
        self._history = history
        self._targets = targets
        self._code = {**SHIPPED, **jobs}
        self._workers: dict[tuple[str, int], ProcessWorkers] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def knows(self, job: str) -> bool:
        """Return whether a job's code is known here."""
        return job in self._code

    async def resume(self, target: str, status: JobStatus, *, by: str) -> None:
        """Have a process go on with a run; raises `JobError` for one that cannot go on."""
        if status.state not in ACTIVE:
            raise JobError(f"run {status.run} is {status.state}")
        if not self.knows(status.job):
            raise JobError(f"{status.job} is no --job of this service")
        await self._history.note(by, "job resume", detail=f"{status.run} on {target}")
        if (target, status.run) in self._workers:
            return
        workers = ProcessWorkers(1, lambda _index, _message: None)
        self._workers[target, status.run] = workers
        task = asyncio.create_task(self._work(target, status, workers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Pause where the processes are: each ends behind its chunk."""
        for workers in self._workers.values():
            workers.tell(0, Halt())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CHUNK)
        for workers in self._workers.values():  # a job loses nothing by that but its chunk's work
            workers.give_up(0)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self, target: str, status: JobStatus, workers: ProcessWorkers) -> None:
        try:
            url = (await self._targets.url(target)).render_as_string(hide_password=False)
            code, arguments = self._code[status.job], dict(status.arguments)
            async with workers:
                await answer_of(workers.submit(0, resume_job, code, url, arguments))
        except AsyncLoaderError as error:
            log.warning("job %s on %s: %s", status.job, target, error)
        finally:
            del self._workers[target, status.run]
