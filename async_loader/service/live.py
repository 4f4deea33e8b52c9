"""What a run tells while it goes on: the latest events, for any number of watchers."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

# An hour of seconds; who asks for older ones gets what there is.
_EVENTS = 3600
# The last event's id.
ENDED = "end"
_NUMBER = re.compile(r"[0-9]{1,18}")
# Says that the line is still there, to a watcher and to whatever is between.
_BEAT_EVERY = 10.0
_BEAT = b": \n\n"


class Live:
    """
    The events of one run, numbered from 1. An event is made once, as bytes, for all watchers.

    `snapshot` and `phase` are the latest ones.
    """

    def __init__(self) -> None:
        self.snapshot: Mapping[str, Any] | None = None
        self.phase: str | None = "starting"
        self.over = False
        self._events: deque[bytes] = deque(maxlen=_EVENTS)
        self._last = 0
        self._changed = asyncio.Event()

    def add(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell all watchers something."""
        self._append(event(str(self._last + 1), kind, data))

    def end(self, state: str, reasons: Sequence[str]) -> None:
        """Tell all watchers how it ended: the last event."""
        self.phase = None
        self.over = True
        self._append(ended(state, reasons))

    def _append(self, fresh: bytes) -> None:
        self._last += 1
        self._events.append(fresh)
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, number: int) -> tuple[int, bytes]:
        """Return the latest event's number, and all events after one, as they are sent."""
        if number > self._last:  # of another life of the service
            number = 0
        fresh = min(self._last - number, len(self._events))
        # From the end, where a deque is quick.
        return self._last, b"".join(self._events[n] for n in range(-fresh, 0))

    async def watch(self, number: int) -> AsyncIterator[bytes]:
        """Yield what is sent to a watcher who has seen all up to an event, until the run's end."""
        while True:
            changed = self._changed
            number, fresh = self.since(number)
            if fresh:
                yield fresh
            if self.over:
                return
            if not await _set_within(changed, _BEAT_EVERY):
                yield _BEAT


def event(name: str, kind: str, data: Mapping[str, Any]) -> bytes:
    """Return a server-sent event; `name` is its id."""
    return f"id: {name}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def event_number(name: str | None) -> int:
    """Return the number of the event that an id names; 0, before the first, for none of ours."""
    # int() takes other scripts' digits, and refuses 5,000 of them.
    return int(name) if name and _NUMBER.fullmatch(name) else 0


def ended(state: str, reasons: Sequence[str]) -> bytes:
    """Return the last event of a run, the same for all who ask when it is over."""
    return event(ENDED, "end", {"state": state, "reasons": list(reasons)})


async def _set_within(changed: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return False
    return True
