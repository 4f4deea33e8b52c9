"""What a coordinator may ask of its workers, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, Self, TypeVar, overload

from msgspec import Struct, convert, to_builtins

# All that JSON can say: it goes through a pipe or somebody else's protocol.
Arrived = Mapping[str, Any]
# What a worker tells again and again is at most so long, and at most once a second.
SNAPSHOT_BYTES = 4096


class Message(Struct, frozen=True, tag_field="is", tag=str.lower, omit_defaults=True):
    """What goes through a line, and is small; both ends know the kinds of one conversation."""


class Halt(Message, frozen=True):
    """The work is to end: when this comes first it drains, then it waits for nothing."""

    by: str | None = None
    """Who asked, for people."""


MessageT = TypeVar("MessageT")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def encoded(message: object) -> bytes:
    """
    Return a message as it travels.

    Not by msgspec's own JSON: an application's words may hold what is no UTF-8.
    """
    return json.dumps(to_builtins(message), separators=(",", ":")).encode()


@overload
def read(arrived: Arrived, kinds: type[MessageT]) -> MessageT: ...


@overload
def read(arrived: Arrived, kinds: Any) -> Any: ...


def read(arrived: Arrived, kinds: Any) -> Any:
    """Return the message that has arrived, one of the kinds (a class, or a union of them)."""
    return convert(arrived, kinds)


class Link(Protocol):
    """A worker's line to its coordinator: what every function on a worker is given."""

    @property
    def name(self) -> str:
        """The worker's name, for people."""
        ...

    def tell(self, message: Message | Arrived) -> None:
        """Send a message up; from any thread. The order is kept."""
        ...

    def listen(self, heard: Callable[[Arrived | None], object]) -> None:
        """
        Have messages from above delivered, those that have come already first; see `read`.

        `heard` is called on a thread of the link's. None says that the coordinator has gone:
        a process of its own ends by itself within seconds, whatever the function does.
        """
        ...


class Worked(Protocol[T_co]):
    """A function for a worker: importable there, with arguments that can be pickled."""

    def __call__(self, link: Link, /, *args: Any) -> T_co:
        """Do the work, on the main thread of a process where the kind of workers has one."""
        ...


class Workers(Protocol):
    """
    A fixed number of workers, by index, from `async with` to its end.

    Entering waits until all are there, and raises an `AsyncLoaderError` that names the one that
    cannot work. Leaving ends them, and with them whatever they still do. `on_message` (see the
    kinds' constructors) is called on the coordinator's event loop with a worker's index.
    """

    @property
    def names(self) -> Sequence[str]:
        """The workers' names, for people: `process 3`."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def submit(self, index: int, function: Worked[T], *args: Any) -> Future[T]:
        """
        Call `function(link, *args)` on exactly this worker; one at a time.

        The future raises what the function raised, and `WorkerLostError` where the worker has
        died. To cancel it does nothing to a call that has begun: send a message, or leave.
        """
        ...

    def tell(self, index: int, message: Message | Arrived) -> None:
        """
        Send a message down, for the call that this worker is at or the next one it is given.

        To a worker that is lost it goes nowhere.
        """
        ...

    def give_up(self, index: int) -> None:
        """Wait no more for a worker that stands still; one that is a process of ours is ended."""
        ...

    def clock_offset_ns(self, index: int) -> int:
        """Return what this worker's `time.time_ns()` is ahead of ours: 0 on one machine."""
        ...
