"""
What a run does: named operations, and the seeded stream that mixes them.

Operation *i* of a run depends on (seed, i) alone, so that any split of the stream over
workers, processes or machines performs the same work.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import update_wrapper
from itertools import accumulate
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from ..errors import ConfigurationError
from .arguments import Argument, argument_of, give_all
from .context import Claims, OperationContext, hash64

Kind = Literal["read", "write"]
AsyncFunction = Callable[..., Coroutine[Any, Any, Any]]
F = TypeVar("F", bound=AsyncFunction)
S = TypeVar("S", bound=Callable[..., Any])
T = TypeVar("T")
P = ParamSpec("P")

# How long whoever performed an operation waits before the next: seconds, at least and at most.
Think = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One named kind of work, its share of the stream and the parameters it asks for.

    Of a `kind` that is not declared, what it does decides: one that writes is a write.
    """

    name: str
    kind: Kind | None
    weight: float
    function: AsyncFunction
    wants: frozenset[str]
    twin: SyncTwin | None = None
    think: Think | None = None
    rolls_back: bool = False
    failing_status: int | None = 500
    tags: Mapping[str, str] = field(default_factory=dict)
    isolated: bool = True
    """Whether each has a context and a task of its own: what has no user code needs none."""


@dataclass(frozen=True, slots=True)
class SyncTwin:
    """The same work as an operation's, over a plain `Session`."""

    function: Callable[..., Any]
    wants: frozenset[str]


class Registered(Generic[P]):
    """What `@workload.operation` returns: the function as before, and `sync` for its twin."""

    def __init__(
        self, workload: Workload, name: str, function: Callable[P, Awaitable[Any]]
    ) -> None:
        self._workload = workload
        self._name = name
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Any]:
        """Call the operation's function."""
        return self._function(*args, **kwargs)

    def sync(self, function: S) -> S:
        """
        Register the plain function that does the same over a `Session`::

            @create.sync
            def create_sync(session: Session, op: OperationContext) -> None: ...
        """
        role = f"the sync twin of operation {self._name!r}"
        wants = _wanted(function, role, ("session", "op"), coroutine=False)
        operations = self._workload.operations
        operations[self._name] = replace(operations[self._name], twin=SyncTwin(function, wants))
        return function


class Workload:
    """
    Operations with their set-up and tear-down, registered by decorators::

        workload = Workload("shop")

        @workload.setup
        async def seed_rows(sessions): ...          # its return value is op.shared

        @workload.operation("checkout", weight=3, kind="write")
        async def checkout(session, op): ...

    An operation names the parameters it wants: `session` (an `AsyncSession`, opened and
    closed by the runner; committing is the operation's business), `op` (an
    `OperationContext`), both or none. Set-up may ask for `sessions` and `seed`, tear-down
    for `sessions` and `shared`. Anything else raises `ConfigurationError` at once.

    `think` is the time that a user takes before the next operation: seconds, or the least and
    the most of them, drawn evenly by (seed, index). In the closed models it occupies one of the
    concurrent users and is in no latency; where operations arrive at a rate it has no meaning.
    """

    def __init__(self, name: str, *, think: float | Think = 0.0) -> None:
        self.name = name
        self.think = _think(f"workload {name!r}", think)
        self.operations: dict[str, Operation] = {}
        self.arguments: dict[str, Argument[Any]] = {}
        self.sessions_hook: Callable[[], Any] | None = None
        self.setup_hook: Hook | None = None
        self.teardown_hook: Hook | None = None

    def operation(
        self,
        name: str,
        *,
        weight: float = 1,
        kind: Kind | None = None,
        think: float | Think | None = None,
        rolls_back: bool = False,
        failing_status: int | None = 500,
        tags: Mapping[str, str] | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, Any]]], Registered[P]]:
        """
        Register a coroutine function as an operation; weights are relative.

        `kind`, where it is not said, is what the operation does; `write_ratio` needs it said.
        `think` is the time after this operation, in place of the workload's. One that writes and
        commits nothing of it fails, unless it says that it `rolls_back`; so does one that returns
        an HTTP response whose status is `failing_status` or more (None: none does). `tags` are
        what thresholds can be about besides its name: `{"team": "billing"}`.
        """
        name = _name(name)
        if name in self.operations:
            raise ConfigurationError(f"workload {self.name!r} has two operations named {name!r}")
        if kind not in ("read", "write", None):
            raise ConfigurationError(
                f"operation {name!r}: kind must be 'read' or 'write', not {kind!r}"
            )
        given: object = weight  # a caller may give anything
        if not (isinstance(given, int | float) and 0 < given < float("inf")):
            raise ConfigurationError(f"operation {name!r}: weight must be above 0, not {weight!r}")

        tagged = _tags(name, tags or {})
        thinks = self.think if think is None else _think(f"operation {name!r}", think)

        def register(function: Callable[P, Coroutine[Any, Any, Any]]) -> Registered[P]:
            wants = _wanted(function, f"operation {name!r}", ("session", "op"))
            self.operations[name] = Operation(
                name,
                kind,
                weight,
                function,
                wants,
                think=thinks,
                rolls_back=rolls_back,
                failing_status=failing_status,
                tags=tagged,
            )
            return Registered(self, name, function)

        return register

    def argument(
        self,
        name: str,
        default: T | None = None,
        *,
        type: Callable[[str], T] | None = None,  # noqa: A002
    ) -> Argument[T]:
        """
        Declare what whoever runs the workload may give, as `--arg page_size=50`::

            page_size = workload.argument("page_size", 20)  # page_size.value is an int
            tenant = workload.argument("tenant", type=str)  # without a default it must be given

        It is read by the default's type, or by `type`.
        """
        if name in self.arguments:
            raise ConfigurationError(f"workload {self.name!r} has two arguments named {name!r}")
        declared = argument_of(name, default, type, f"workload {self.name!r}")
        self.arguments[name] = declared
        return declared

    def set_arguments(self, /, **given: object) -> None:
        """Give the arguments values, or the texts of values; those that are not given, defaults."""
        give_all(self.arguments, given, f"workload {self.name!r}")

    def sessions(self, function: S) -> S:
        """
        Register the function that returns what makes the sessions, called once a run::

            @workload.sessions
            def sessions() -> async_sessionmaker[AsyncSession]:
                return shop.database.Session

        The load then runs through the application's own engine, pool and events, and no
        schema of ours is made. Any factory of `AsyncSession` will do: an `async_sessionmaker`, an
        `async_scoped_session`, a function that returns a session or yields it.
        """
        self._refuse_second("function of sessions", self.sessions_hook)
        _wanted(function, "the function of sessions", (), coroutine=False)
        self.sessions_hook = function
        return function

    def setup(self, function: F) -> F:
        """Register the coroutine function that prepares the database, once a run."""
        self._refuse_second("set-up", self.setup_hook and self.setup_hook.function)
        self.setup_hook = Hook(function, _wanted(function, "set-up", ("sessions", "seed")))
        return function

    def teardown(self, function: F) -> F:
        """
        Register the coroutine function that always runs at the end.

        After a set-up that raised or was stopped, too: then `shared` is None.
        """
        self._refuse_second("tear-down", self.teardown_hook and self.teardown_hook.function)
        self.teardown_hook = Hook(function, _wanted(function, "tear-down", ("sessions", "shared")))
        return function

    def _refuse_second(self, role: str, first: Callable[..., Any] | None) -> None:
        if first is not None:
            raise ConfigurationError(
                f"workload {self.name!r} has a {role} already, at {_source_line(first)}: it has one"
            )

    def mix(self, *, seed: int = 0, write_ratio: float | None = None) -> Mix:
        """
        Return the seeded stream of operations.

        `write_ratio` (0 to 1) sets the share of all writes together; within a kind the
        weights keep their proportions. None leaves the weights as they are.
        Raises `ConfigurationError` for a workload without operations, or for a ratio that
        needs a kind the workload does not have.
        """
        operations = tuple(self.operations.values())
        if not operations:
            raise ConfigurationError(
                f"workload {self.name!r} has no operation: "
                "decorate a coroutine function with @workload.operation(name)"
            )
        if write_ratio is not None:
            operations = _with_write_ratio(self.name, operations, write_ratio)
        return Mix(operations, seed)


@dataclass(frozen=True, slots=True)
class Hook:
    """A set-up or tear-down function and the parameters it asks for."""

    function: AsyncFunction
    wants: frozenset[str]

    async def __call__(self, **available: Any) -> Any:
        """Call the function with what it asks for of what is available."""
        return await self.function(**{name: available[name] for name in self.wants})


@dataclass(frozen=True, slots=True)
class Mix:
    """An immutable, seeded stream: `mix.choose(i)` is the operation that number i performs."""

    operations: tuple[Operation, ...]
    seed: int
    claims: Claims = field(default_factory=Claims, repr=False, compare=False)
    _bounds: list[int] = field(init=False, repr=False)
    _hash_seed: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        total = sum(operation.weight for operation in self.operations)
        shares = accumulate(operation.weight / total for operation in self.operations)
        # The last bound is implied, so that rounding can never lead past the end.
        bounds = [int(share * 2**64) for share in shares][:-1]
        object.__setattr__(self, "_bounds", bounds)
        object.__setattr__(self, "_hash_seed", hash64(0, self.seed))

    def choose(self, index: int) -> Operation:
        """Return the operation for this index."""
        return self.operations[bisect_right(self._bounds, hash64(self._hash_seed, index))]

    def think_time(self, index: int) -> float:
        """Return the seconds that pass after this operation before its user's next."""
        think = self.choose(index).think
        if think is None:
            return 0.0
        least, most = think
        # A third stream: what is done, and with which numbers, does not set the pace.
        return least + (most - least) * hash64(hash64(2, self.seed), index) / 2**64

    def context(
        self, index: int, shared: Any, checks: Callable[[str, bool], None] | None = None
    ) -> OperationContext:
        """Return a new context for this index; `checks` counts what it checks."""
        return OperationContext(index, self._hash_seed, shared, checks, self.claims)


def _with_write_ratio(
    workload: str, operations: Iterable[Operation], ratio: float
) -> tuple[Operation, ...]:
    shares: dict[Kind, float] = {"write": ratio, "read": 1 - ratio}
    totals: dict[Kind, float] = {"write": 0, "read": 0}
    operations = list(operations)
    for operation in operations:
        if operation.kind is None:
            raise ConfigurationError(
                f"a write ratio needs declared kinds: operation {operation.name!r} of workload "
                f"{workload!r} says neither kind='read' nor kind='write'"
            )
        totals[operation.kind] += operation.weight
    for kind, share in shares.items():
        if share and not totals[kind]:
            raise ConfigurationError(
                f"write ratio {ratio:g} needs a {kind} operation; workload {workload!r} has none"
            )
    return tuple(
        replace(operation, weight=operation.weight / totals[operation.kind] * share)
        for operation in operations
        if operation.kind is not None and (share := shares[operation.kind])
    )


def _name(name: object) -> str:
    """Return an operation's name; of an Enum's member that is its value, where that is text."""
    text = name.value if isinstance(name, Enum) and isinstance(name.value, str) else name
    if isinstance(name, Enum) and not isinstance(text, str):
        text = name.name
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise ConfigurationError(f"the name of an operation is a line of text, not {name!r}")
    return str(text)


def _tags(name: str, tags: Mapping[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        given: object = value  # a caller may give anything
        is_text = isinstance(given, str) and given.isprintable() and not set(given) & set(",{}")
        if not (is_text and key.isidentifier()) or key in ("op", "stage"):
            raise ConfigurationError(
                f"operation {name!r}: a tag is a word, but op or stage, and a text without comma "
                f"and braces, not {key!r}: {value!r}"
            )
    return dict(tags)


def _think(whose: str, think: float | Think) -> Think | None:
    """Return the least and the most seconds; None where they are none."""
    least, most = think if isinstance(think, tuple) else (think, think)
    if not 0 <= least <= most < float("inf"):
        raise ConfigurationError(
            f"{whose}: think is seconds, or (least, most) of them, not {think!r}"
        )
    return (float(least), float(most)) if most else None


def _wanted(
    function: Callable[..., Any], role: str, allowed: tuple[str, ...], coroutine: bool = True
) -> frozenset[str]:
    """Return the parameter names; raise `ConfigurationError` that names the source line."""
    where = _source_line(function)
    if inspect.iscoroutinefunction(function) != coroutine:
        form = "a coroutine function (async def)" if coroutine else "a plain function (def)"
        raise ConfigurationError(f"{where}: {role} must be {form}")
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if by_name and (parameter.name in allowed or parameter.default is not parameter.empty):
            continue
        names = " or ".join(f"`{name}`" for name in allowed) or "nothing"
        raise ConfigurationError(f"{where}: {role} may ask for {names}, not for `{parameter.name}`")
    return frozenset(p.name for p in parameters if p.name in allowed)


def _source_line(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return repr(function)
    return f"{code.co_filename}:{code.co_firstlineno}"
