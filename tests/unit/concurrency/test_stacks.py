"""What a thread is at, seen from another one."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from async_loader.concurrency.stacks import stack_of


def deep(levels: int, there: threading.Event, go: threading.Event) -> None:
    """Wait so many calls down."""
    if levels:
        deep(levels - 1, there, go)
    else:
        there.set()
        go.wait()


@pytest.fixture
def waiting() -> Iterator[int]:
    """Yield the identifier of a thread that waits fifty calls down."""
    there, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=deep, args=(50, there, go))
    thread.start()
    there.wait()
    assert thread.ident is not None
    yield thread.ident
    go.set()
    thread.join()


def test_frames_are_those_of_the_thread(waiting: int) -> None:
    names = [frame.f_code.co_name for frame in stack_of(waiting)]
    assert names.count("deep") == 51
    assert names.index("wait") < names.index("deep")


def test_up_to_the_base(waiting: int) -> None:
    names = [frame.f_code.co_name for frame in stack_of(waiting, base={deep.__code__})]
    assert "wait" in names
    assert "deep" not in names


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="collects between instructions only")
def test_nothing_is_collected_on_the_way(waiting: int) -> None:
    """A finalizer that lets the thread go on would leave a frame without memory: a crash."""
    collected = []

    def note(phase: str, _: dict[str, int]) -> None:
        collected.append((phase, sys._getframe(1).f_code.co_name))

    threshold = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(5)
    try:
        stack_of(waiting)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(note)
    assert gc.isenabled()
    assert "stack_of" not in [name for _, name in collected]
