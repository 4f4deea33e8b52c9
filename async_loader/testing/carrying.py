"""Threads that a test starts, and what it leaves to a pool of them: they work for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any

from .statements import Watch, at_work, current_watch

_lock = threading.Lock()
_users = 0
_originals: list[tuple[type, str, Any, Any]] = []


@contextmanager
def threads_carry_the_watch() -> Iterator[None]:
    """Have threads take the watch of who starts them along, until the block ends."""
    global _users  # noqa: PLW0603  one patch of the process, however many want it
    with _lock:
        _users += 1
        if _users == 1:
            _replace(threading.Thread, "start", _starting)
            _replace(ThreadPoolExecutor, "submit", _submitting)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            while not _users and _originals:
                owner, name, original, ours = _originals.pop()
                if vars(owner).get(name) is ours:
                    setattr(owner, name, original)


def _replace(owner: type, name: str, wrap: Callable[[Any], Any]) -> None:
    original = vars(owner)[name]
    ours = wrap(original)
    _originals.append((owner, name, original, ours))
    setattr(owner, name, ours)


def _for(watch: Watch, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def work(*args: Any, **kwargs: Any) -> Any:
        with at_work(watch):
            return call(*args, **kwargs)

    return work


def _starting(start: Callable[..., None]) -> Callable[..., None]:
    @wraps(start)
    def start_for(self: threading.Thread) -> None:
        watch = current_watch.get()
        if watch is not None:
            self.run = _for(watch, self.run)  # type: ignore[method-assign]
        start(self)

    return start_for


def _submitting(submit: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(submit)
    def submit_for(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        watch = current_watch.get()
        return submit(self, fn if watch is None else _for(watch, fn), *args, **kwargs)

    return submit_for
