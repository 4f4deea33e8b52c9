"""A run in a worker process, seen from the service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ..concurrency.tasks import answer_of
from ..database.postgresql import first_line
from ..errors import AsyncLoaderError
from ..failures.redaction import redacted
from ..load.specs.load_test import LoadTestSpec
from ..workers import Halt, ProcessWorkers, read
from .messages import Told
from .work import perform

log = logging.getLogger("async_loader.service")

OnMessage = Callable[[Told], object]
Answer = Mapping[str, Any]

_KILLED = (
    "its process was killed: it was asked to end, and told to, and did neither; "
    "an operation blocks it"
)


class Execution:
    """One run in a process of its own, from `perform` to its answer."""

    def __init__(self, on_message: OnMessage) -> None:
        self._workers = ProcessWorkers(1, lambda _index, message: on_message(read(message, Told)))
        self._asked: list[str] = []
        self._ready = False
        self._killed = False

    def stop(self, by: str) -> None:
        """Ask it to end: the first time it drains, the second it does not wait."""
        self._asked.append(by)
        if self._ready:
            self._workers.tell(0, Halt(by))

    def kill(self) -> None:
        """End its process from outside: what it does not heed is no request."""
        self._killed = True
        if self._ready:
            self._workers.give_up(0)

    async def perform(self, spec: LoadTestSpec) -> Answer:
        """
        Perform the run; return `state`, `reasons` and, where there is a result, the rest.

        A process that dies, or a defect of ours in it, is a run that ended with an error.
        """
        try:
            async with self._workers:
                done: Future[Answer] = self._workers.submit(0, perform, spec)
                self._ready = True
                for by in self._asked:
                    self._workers.tell(0, Halt(by))
                if self._killed:
                    self._workers.give_up(0)
                return await answer_of(done)
        except AsyncLoaderError as error:
            if self._killed:
                return {"state": "error", "reasons": [_KILLED]}
            return {"state": "error", "reasons": [f"the run's process was lost: {error}"]}
        except Exception as error:
            log.exception("a run's process met a defect")
            what = redacted(first_line(error), error)
            return {"state": "error", "reasons": [f"an unexpected {type(error).__name__}: {what}"]}
