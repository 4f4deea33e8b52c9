"""The inside of a worker process: its line to whoever started it, and its end with them."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ..runtime.streams import flush_all
from .contract import Arrived, Message, Worked, encoded
from .inbox import Heard, Inbox
from .orphans import end_with

T = TypeVar("T")

# How long a call has to end by itself once its coordinator is gone.
_LAST_SECONDS = 5.0
# Both are the coordinator's to heed: a terminal or a supervisor sends them to everybody.
SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

_link: PipeLink


class PipeLink:
    """`Link` over a pipe whose other end closes with the coordinator, however that dies."""

    def __init__(self, name: str, pipe: Connection) -> None:
        self.name = name
        self._pipe = pipe
        self._sending = threading.Lock()
        self._inbox = Inbox()

    def tell(self, message: Message | Arrived) -> None:
        """See `Link.tell`."""
        # Where nobody is there any more the reading thread knows it, too.
        with self._sending, suppress(OSError):
            self._pipe.send_bytes(encoded(message))

    def listen(self, heard: Heard) -> None:
        """See `Link.listen`."""
        self._inbox.listen(heard)

    def hang_up(self) -> None:
        """Listen no more: the call is over."""
        self._inbox.hang_up()

    def read(self) -> None:
        """Deliver what comes, and end the process when nothing can come any more."""
        while True:
            try:
                message = json.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                break
            self._inbox.deliver(message)
        self._end()

    def _end(self) -> None:
        if self._inbox.deliver(None):
            _over.wait(_LAST_SECONDS)
        # Not sys.exit: the main thread may be anywhere, and nothing of ours may hold it up.
        os._exit(1)


_over = threading.Event()


def begin(name: str, pipe: Connection, parent: int) -> None:
    """Make this process a worker: what its pool calls first."""
    global _link  # noqa: PLW0603  a process is one worker, for as long as it lives
    end_with(parent)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _link = PipeLink(name, pipe)
    threading.Thread(target=_link.read, name="link", daemon=True).start()


def call(function: Worked[T], args: tuple[Any, ...]) -> T:
    """Perform a call in this worker."""
    _over.clear()
    try:
        return function(_link, *args)
    finally:
        flush_all()  # what it printed: the process may end without Python's own last things
        _over.set()
        _link.hang_up()


def ready() -> int:
    """Return this worker's process id: it is there."""
    return os.getpid()
