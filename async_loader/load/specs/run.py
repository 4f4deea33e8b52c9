"""What one runner is to do with a workload: the parts of a `RunSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from ...errors import ConfigurationError
from ...verdict.thresholds import Threshold, parse
from ..metrics.repeats import LEAST
from ..pacing.limits import Limit
from ..pacing.throttles import Semaphore, Throttle

CONCURRENCY = 40

_P = TypeVar("_P")


class RunOptions(TypedDict, total=False):
    """
    The options of `async_loader.run`: the fields of a `RunSpec` as keywords.

    For type checkers and editors, which cannot derive it; a test holds it to the spec.
    """

    ops: int | None
    duration: float | None
    warmup: Limit | None
    max_tries: int
    concurrency: int
    throttle: Throttle | None
    op_timeout: float
    grace: float
    give_up: float
    latency_limit: float | None
    thresholds: Sequence[str]
    abort_on_fail: float | None
    seed: int
    write_ratio: float | None
    time_split: bool
    n_plus_one: int
    profile: Path | None
    server_side: bool
    explain_slowest: int
    explain_parameters: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """How much is done: until the limit, after a warm-up that is not counted."""

    limit: Limit
    warmup: Limit | None = None
    max_tries: int = 1
    """Of an operation that the server gave up for others, within its one latency."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what is none of it."""
        if self.warmup is not None and not isinstance(self.warmup, Limit):
            raise ConfigurationError(f"warmup is a Limit, as Limit(ops=1000), not {self.warmup!r}")
        _check("max_tries", self.max_tries, 1, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSpec:
    """How long what may hang is waited for, in seconds."""

    op_timeout: float = 30.0
    """An operation longer than this is cancelled."""
    grace: float = 10.0
    """For operations in flight when a stop is requested."""
    give_up: float = 60.0
    """Without a success among failures the run is aborted; two `op_timeout` at least."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what is no time."""
        for f in fields(self):
            _check(f.name, getattr(self, f.name), 0)

    @property
    def until_aborted(self) -> float:
        """How long a run goes on in which operations fail and none succeeds."""
        return max(self.give_up, 2 * self.op_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictSpec:
    """What makes a run a bad one while it goes on."""

    latency_limit: float | None = None
    """Operations that took longer, in seconds, are counted."""
    thresholds: tuple[Threshold, ...] = ()
    abort_on_fail: float | None = None
    """From so many seconds on a threshold that does not hold ends the run."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what is no time."""
        for name, seconds in (
            ("latency_limit", self.latency_limit),
            ("abort_on_fail", self.abort_on_fail),
        ):
            if seconds is not None:
                _check(name, seconds, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """Which operations are drawn: operation i depends on these and on i alone."""

    seed: int = 0
    write_ratio: float | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what is no number."""
        _check("seed", self.seed, -inf, whole=True)
        if self.write_ratio is not None:
            _check("write_ratio", self.write_ratio, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentSpec:
    """What is measured beside counts and latencies."""

    time_split: bool = True
    n_plus_one: int = LEAST
    """A statement that one operation executes so often is named; 0: none is."""
    profile: Path | None = None
    """Where the stacks go that the event loop was seen at."""
    server_side: bool = False
    explain_slowest: int = 0
    """Of so many statements, the slowest, the plan is asked for after measuring."""
    explain_parameters: bool = False
    """Whether plans show the values in them."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what is no number of times."""
        _check("n_plus_one", self.n_plus_one, 0, whole=True)
        _check("explain_slowest", self.explain_slowest, 0, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What one event loop, or one crew of threads, is to do."""

    load: LoadSpec
    throttle: Throttle = field(default_factory=lambda: Semaphore(CONCURRENCY))
    timeouts: TimeoutSpec = field(default_factory=TimeoutSpec)
    verdict: VerdictSpec = field(default_factory=VerdictSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    instruments: InstrumentSpec = field(default_factory=InstrumentSpec)

    @classmethod
    def of(cls, **options: Unpack[RunOptions]) -> RunSpec:
        """
        Return the spec that a call with these keywords means.

        Raises `ConfigurationError` for a value, `TypeError` for a name that there is not.
        """
        left: dict[str, Any] = dict(options)
        concurrency = left.pop("concurrency", CONCURRENCY)
        throttle = left.pop("throttle", None) or Semaphore(concurrency)
        left["limit"] = Limit(left.pop("ops", None), left.pop("duration", None))
        thresholds = left.get("thresholds", ())
        if isinstance(thresholds, str):
            raise ConfigurationError(f"thresholds is a list, as [{thresholds!r}], and no text")
        left["thresholds"] = tuple(map(parse, thresholds))
        if left.get("profile") is not None:
            left["profile"] = Path(left["profile"])
        spec = cls(
            load=_taken(LoadSpec, left),
            throttle=throttle,
            timeouts=_taken(TimeoutSpec, left),
            verdict=_taken(VerdictSpec, left),
            sampling=_taken(SamplingSpec, left),
            instruments=_taken(InstrumentSpec, left),
        )
        for name in left:
            raise TypeError(f"run() got an unexpected keyword argument {name!r}")
        return spec


def _taken(kind: type[_P], options: dict[str, Any]) -> _P:
    """Return a part of the spec, made of the options that are its fields, which are taken out."""
    names = [f.name for f in fields(kind) if f.name in options]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: options.pop(name) for name in names})


def _check(name: str, value: Any, least: float, *, whole: bool = False) -> None:
    """Raise `ConfigurationError` for a value that is no number, or is too small."""
    is_one = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_one or not least <= value < inf:
        kind = "a whole number" if whole else "a number"
        bound = "" if least == -inf else f" from {least:g} on"
        raise ConfigurationError(f"{name} is {kind}{bound}, not {value!r}")
