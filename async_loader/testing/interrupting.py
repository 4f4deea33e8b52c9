"""Jobs cut off at a chunk, as a kill would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..jobs.checkpoints import WATCHER, Cut, Place


class Interrupted(Cut):
    """Stands for a kill: no `except Exception` of the job or of yours sees it."""


@contextmanager
def interrupt_after(chunks: int, place: Place = "before commit") -> Iterator[None]:
    """
    Cut the jobs run in this block off at a chunk, as a kill would: `Interrupted` is raised.

    `chunks` are committed, and the next is cut off when it is applied and not yet committed;
    or, with "after commit", when it is committed and nobody knows yet::

        with pytest.raises(Interrupted), interrupt_after(3):
            await job.run(Session)
        await job.run(Session)  # goes on behind the third chunk
    """
    reached = 0

    def watch(here: Place) -> None:
        nonlocal reached
        if here == place:
            reached += 1
            if reached > chunks:
                raise Interrupted(f"interrupted {place} of chunk {reached}")

    token = WATCHER.set(watch)
    try:
        yield
    finally:
        WATCHER.reset(token)
