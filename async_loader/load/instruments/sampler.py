"""A thread that looks now and then at what the event loop's thread is at."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter_ns
from types import FrameType

from ...concurrency.stacks import loop_frames, owner_of, stack_of
from ...failures.source_lines import Place, place_in, user_place_here, written
from ...results.loop_profile import Blocking, LoopProfile
from .loop_meter import LoopMeter
from .steps import stepped
from .times import OperationTimes

# Each look makes the loop's thread hand over the GIL: of 100 a second it feels some per cent.
_EVERY = 0.02
# What keeps the loop for so long makes itself felt: every timer is that late.
_LONG_NS = 15_000_000
_MOST_LINES = 100
_MOST_FUNCTIONS = 20
# A stack beyond so many frames, or stacks beyond so many, tell nothing more.
_MOST_STACKS = 20_000
_BETWEEN = {stepped.__code__}
_ORM = ("sqlalchemy", "driver")

# The outermost frame first, as speedscope has it: function, file and line.
Stack = tuple[tuple[str, str, int], ...]


@dataclass(slots=True)
class _Block:
    times: int = 0
    total_ns: int = 0
    longest_ns: int = 0


@dataclass(slots=True)
class _Seen:
    """One look at what runs within SQLAlchemy, whose caller is not on the stack."""

    age_ns: int
    step: int
    stack: Stack


@dataclass(slots=True)
class Samples:
    """What the sampler has seen since it began."""

    samples: int = 0
    busy: int = 0
    owners: Counter[str] = field(default_factory=Counter)
    functions: Counter[Place] = field(default_factory=Counter)
    blocks: dict[tuple[str | None, Place], _Block] = field(default_factory=dict)
    stacks: Counter[Stack] = field(default_factory=Counter)

    def result(self) -> LoopProfile:
        """Return what was seen."""
        blocking = [
            Blocking(operation, written(place), b.times, b.total_ns / 1e6, b.longest_ns / 1e6)
            for (operation, place), b in self.blocks.copy().items()
        ]
        return LoopProfile(
            samples=self.samples,
            busy=self.busy,
            owners=dict(self.owners),
            functions={
                written(place): count
                for place, count in self.functions.most_common(_MOST_FUNCTIONS)
            },
            blocking=tuple(sorted(blocking, key=lambda one: -one.total_ms)),
        )


class _Scheduling:
    """How long a thread was ready to run and had no core, as Linux counts it; 0 elsewhere."""

    def __init__(self, native_id: int) -> None:
        # Kept open: each call that leaves the GIL makes the loop's thread hand it over once more.
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY)
        self._waited_ns = 0

    def waited_since_ns(self) -> int:
        """Return the nanoseconds since the last call."""
        if self._file is None:
            return 0
        try:
            waited_ns = int(os.pread(self._file, 64, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        waited_ns, self._waited_ns = waited_ns - self._waited_ns, waited_ns
        return waited_ns

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class LoopSampler:
    """
    Samples of one event loop's thread, some fifty a second.

    Three things are read off them: whose code the loop runs (`Samples.owners`), what has kept
    it for itself for 15 ms and more (`blocks`), and how much of what an operation ran was
    really SQLAlchemy's: objects are made and statements built outside of its awaited calls, and
    an application's functions are called within them (`Shares`).

    What runs within SQLAlchemy's greenlets has no caller on its stack. So it is kept with the
    operation, which completes it when it comes back to its own code (`complete`).
    """

    def __init__(self, meter: LoopMeter, *, keep_stacks: bool = False) -> None:
        self._meter = meter
        self._thread = threading.get_ident()
        self._sleeping = loop_frames()
        self._keep_stacks = keep_stacks
        self._over = threading.Event()
        self._random = random.Random()  # noqa: S311  so as not to beat in time with the load
        self._last: tuple[int, Place | None, int] = (0, None, 0)
        self._scheduling = _Scheduling(threading.get_native_id())
        self._looked_ns = perf_counter_ns()
        self._counted: dict[tuple[str | None, Place], tuple[int, int]] = {}
        self.samples = Samples()
        meter.sampler = self

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample until the end of the block."""
        thread = threading.Thread(target=self._sample, name="async_loader sampler", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._scheduling.close()

    def reset(self) -> None:
        """Forget what was seen, as before the run proper."""
        self.samples = Samples()

    def _sample(self) -> None:
        while not self._over.wait(_EVERY * self._random.uniform(0.5, 1.5)):
            self._look()

    def _look(self) -> None:
        now = perf_counter_ns()
        current, step, since = self._meter.current, self._meter.steps, self._meter.step_ns
        stack = stack_of(self._thread, self._sleeping)
        if stack and stack[0].f_code in _BETWEEN:
            return  # where Python lets other threads in, after what it was at
        starved = self._starved(now)
        samples = self.samples
        samples.samples += 1
        if not stack:
            self._last = (0, None, 0)
            return
        samples.busy += 1
        owner = owner_of(stack)
        samples.owners[owner] += 1
        times = current if isinstance(current, OperationTimes) else None
        place = place_in(stack)
        if owner == "application" and place is not None:
            samples.functions[place] += 1
        if times is None:
            if not starved:
                self._look_aside(stack, step, place, now)
            return
        self._meter.shares[times.operation].count(inside=times.orm, orm=owner in _ORM)
        seen = _Seen(0 if starved else now - since, step, self._described(stack))
        if times.inside and place is None:
            times.incomplete.append(seen)
        else:
            self._note(times.operation, place, seen)

    def _starved(self, now: int) -> bool:
        """Whether the thread has mostly waited for a core since the last look (Linux)."""
        since, self._looked_ns = self._looked_ns, now
        return 2 * self._scheduling.waited_since_ns() > now - since

    def _look_aside(self, stack: list[FrameType], step: int, place: Place | None, now: int) -> None:
        """Look at what is no operation's: it blocks where the next look finds it again."""
        last_step, last_place, first = self._last
        if place is None or (last_step, last_place) != (step, place):
            self._last = (step, place, now)
            return
        if now - first > _LONG_NS:
            self._meter.blocked_ns = (first, now)
            self._note(None, place, _Seen(now - first, step, self._described(stack)))

    def complete(self, times: OperationTimes) -> None:
        """Tell of which line of the operation's what was seen within SQLAlchemy is."""
        place = user_place_here()
        seen, times.incomplete = times.incomplete, []
        for each in seen:
            self._note(times.operation, place, each)

    def _note(self, operation: str | None, place: Place | None, seen: _Seen) -> None:
        if self._keep_stacks and len(self.samples.stacks) < _MOST_STACKS:
            name = (operation or "(background)", "", 0)
            self.samples.stacks[(name, *seen.stack)] += 1
        if seen.age_ns < _LONG_NS or place is None:
            return
        key = (operation, place)
        blocks = self.samples.blocks
        if key not in blocks and len(blocks) >= _MOST_LINES:
            return
        block = blocks.setdefault(key, _Block())
        step, age_ns = self._counted.get(key, (-1, 0))
        if step != seen.step:
            block.times += 1
            age_ns = 0
        block.total_ns += seen.age_ns - age_ns
        block.longest_ns = max(block.longest_ns, seen.age_ns)
        self._counted[key] = (seen.step, seen.age_ns)

    def _described(self, stack: list[FrameType]) -> Stack:
        if not self._keep_stacks:
            return ()
        return tuple((f.f_code.co_name, f.f_code.co_filename, f.f_lineno) for f in reversed(stack))
