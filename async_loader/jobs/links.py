"""
Connections that wait for an answer, and which of them wait in vain.

A network may swallow the packets of one connection alone. The server then has nothing to do for
it, and says so on any other: whom it has left idle while a statement is waited for here is cut
off. Such a connection is ended on both sides, and what it was in is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from .connections import server_pid

# An engine's option: its connections do nothing behind a COMMIT but go back to the pool.
GIVES_BACK = "async_loader_gives_back"
_KEY = "async_loader_link"


class Link:
    """
    A driver's connection; `since` when it waits, None while it does not.

    `ends`: for a COMMIT or a ROLLBACK of somebody's who may keep it, whose answer nobody tells.
    `gives_back`: who has it now does nothing behind these but give it back.
    """

    __slots__ = ("__weakref__", "driver", "ends", "gives_back", "since")

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.since: float | None = None
        self.ends = self.gives_back = False

    def wait(self, *, ends: bool = False) -> None:
        """Note that something is sent."""
        self.since, self.ends = time.monotonic(), ends

    def cut_off(self, states: Mapping[int, str]) -> bool:
        """Return whether it waits in vain, by what the server says of its quiet backends."""
        state = states.get(server_pid(self.driver), "gone")
        return not self.ends if state == "idle" else state != "busy"


def will_be_given_back(connection: Connection) -> None:
    """Note that a connection goes back to the pool behind its COMMIT or ROLLBACK."""
    if (link := _link_of(connection)) is not None:
        link.gives_back = True


def _link_of(connection: Connection) -> Link | None:
    """Return a connection's, None for one that was given up: to ask it would be an error."""
    return None if connection.invalidated else connection.info.get(_KEY)


class Links:
    """The connections of an engine's pool, looked at for as long as `listening`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.sync_engine
        self._links: WeakSet[Link] = WeakSet()

    def all(self) -> tuple[Link, ...]:
        """Return those that were used."""
        return tuple(self._links)

    def waiting(self, seconds: float) -> dict[Link, float]:
        """Return those that have waited for so long, and since when."""
        until = time.monotonic() - seconds
        return {
            link: link.since
            for link in self.all()
            if link.since is not None and link.since <= until
        }

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of whatever is sent and answered."""
        heard: list[tuple[Any, str, Any]] = [
            (self._engine.pool, "connect", self._remember),
            (self._engine.pool, "checkout", self._remember),
            (self._engine.pool, "checkin", self._given_back),
            (self._engine, "before_cursor_execute", self._sent),
            (self._engine, "after_cursor_execute", self._answered),
            (self._engine, "handle_error", self._failed),
            (self._engine, "commit", self._ending),
            (self._engine, "rollback", self._ending),
        ]
        for target, name, hear in heard:
            event.listen(target, name, hear)
        try:
            yield
        finally:
            for target, name, hear in heard:
                event.remove(target, name, hear)

    def _remember(self, connection: Any, record: Any, *_rest: Any) -> None:
        driver, link = connection.driver_connection, record.info.get(_KEY)
        if link is None or link.driver is not driver:
            link = record.info[_KEY] = Link(driver)
        self._links.add(link)

    def _given_back(self, _connection: Any, record: Any) -> None:
        if (link := record.info.get(_KEY)) is not None:
            link.since, link.gives_back = None, False

    def _sent(self, connection: Connection, *_rest: Any) -> None:
        if (link := _link_of(connection)) is not None:
            link.wait()

    def _answered(self, connection: Connection, *_rest: Any) -> None:
        if (link := _link_of(connection)) is not None:
            link.since = None

    def _failed(self, context: ExceptionContext) -> None:
        with suppress(Exception):  # its connection may have been given up
            if context.connection is not None:
                self._answered(context.connection)

    def _ending(self, connection: Connection) -> None:
        if (link := _link_of(connection)) is not None:
            options = connection.get_execution_options()
            link.wait(ends=not (link.gives_back or options.get(GIVES_BACK, False)))


def quiet_states(pids: list[int], seconds: float) -> str:
    """
    Return the statement that asks what these backends do: idle for so long, or busy.

    One that has read a part of a statement is active, and waits for the rest.
    """
    numbers = ", ".join(map(str, pids))
    return (
        "SELECT pid, CASE WHEN GREATEST(state_change, query_start) > clock_timestamp()"
        f" - interval '{seconds:f} seconds' THEN 'busy' WHEN state LIKE 'idle%' THEN state"
        " WHEN wait_event = 'ClientRead' THEN 'reading' ELSE 'busy' END"
        f" FROM pg_stat_activity WHERE pid IN ({numbers})"
    )


def end_backends(pids: list[int]) -> str:
    """Return the statement that ends backends, which do not hear of their clients' end."""
    return f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{', '.join(map(str, pids))}]) pid"
