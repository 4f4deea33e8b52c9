"""
The inside of a Dask worker: calls, each performed once, and their lines to the coordinator.

A call is a task, performed on a thread of the worker's; messages up are events of Dask's, and
messages down are functions that the worker runs beside its tasks.
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

from msgspec import to_builtins

from ...errors import AsyncLoaderError
from ..contract import Arrived, Link, Message
from ..inbox import Heard, Inbox
from ..shipping import Shipped
from .identity import Identity, identity
from .opaque import OpaquePickle

# How often a call looks whether somebody still waits for its answer.
_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call's: on this process alone, and once. `topic`: of Dask's events, for its messages."""

    call: str
    process: str
    index: int
    name: str
    topic: str


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: nothing is raised, as Dask would log the call with what it was given."""

    value: OpaquePickle | None = None
    error: OpaquePickle | None = None
    refused: bool = False


class ClusterLink:
    """`Link` of one call, by way of Dask's scheduler."""

    def __init__(self, ticket: Ticket, worker: Any, inbox: Inbox) -> None:
        self.name = ticket.name
        self._ticket = ticket
        self._worker = worker
        self._inbox = inbox

    def tell(self, message: Message | Arrived) -> None:
        """See `Link.tell`."""
        event = {"index": self._ticket.index, "message": to_builtins(message)}
        self._worker.log_event(self._ticket.topic, event)

    def listen(self, heard: Heard) -> None:
        """See `Link.listen`."""
        self._inbox.listen(heard)


_begun: set[str] = set()
_inboxes: dict[str, Inbox] = {}


def perform(ticket: Ticket, call: OpaquePickle) -> Answer:
    """
    Perform a call, unless it was meant for another process, or has been begun before.

    A scheduler gives the task of a worker that has died to whoever comes in its place.
    """
    from distributed import get_worker  # noqa: PLC0415  only where Dask is

    if ticket.process != identity().process or ticket.call in _begun:
        return Answer(refused=True)
    _begun.add(ticket.call)
    worker = get_worker()
    inbox, over = _inboxes.setdefault(ticket.call, Inbox()), threading.Event()
    watch = threading.Thread(
        target=_watch, args=(worker, worker.get_current_task(), inbox, over), daemon=True
    )
    watch.start()
    try:
        function, args = call.load()
        return Answer(value=OpaquePickle(function(ClusterLink(ticket, worker, inbox), *args)))
    except Exception as error:
        return Answer(error=_sealed(error))
    finally:
        over.set()
        _inboxes.pop(ticket.call, None)


def _watch(worker: Any, key: str, inbox: Inbox, over: threading.Event) -> None:
    """Tell a call when its task is nobody's any more: its coordinator has gone."""
    while not over.wait(_LOOK):
        task = worker.state.tasks.get(key)
        if task is None or task.state not in ("executing", "long-running"):
            inbox.deliver(None)
            return


def _sealed(error: Exception) -> OpaquePickle:
    try:
        sealed = OpaquePickle(error)
        sealed.load()
    except Exception:  # an exception of anybody's, which cannot be pickled, or not unpickled
        return OpaquePickle(AsyncLoaderError(f"{type(error).__name__}: {error}"))
    return sealed


def deliver(call: str, message: Arrived | None) -> None:
    """Deliver a message to a call of this process, which may be still to begin."""
    if call in _inboxes or call not in _begun:
        _inboxes.setdefault(call, Inbox()).deliver(message)


def here() -> Identity:
    """Return which package this process has."""
    return identity()


def ignore_interrupts() -> None:
    """Leave Ctrl-C to whoever started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def now_ns() -> int:
    """Return what the clock of this machine says."""
    return time.time_ns()


def arrive(_link: Link, shipped: Shipped | None) -> None:
    """Take what is to be run; raises `WorkloadError` where it cannot be imported."""
    if shipped is not None:
        shipped.arrive()
