"""What the pytest fixture `load_test` is: a load in a test, and figures to assert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from typing import Unpack

from sqlalchemy.engine import URL

from ..concurrency.clock import SYSTEM_CLOCK, Clock
from ..concurrency.stop import Stop
from ..database.backends import backend_of
from ..database.embedded import embedded_server
from ..database.postgresql import closing
from ..database.session_factories import Sessions, engines_of
from ..database.urls import parse_url
from ..inserts import enable_batch_inserting
from ..load.runner.library import run
from ..load.runner.phase import OnProgress
from ..load.specs.run import RunOptions
from ..load.workload import Workload
from ..results.run import RunResult
from ..verdict.criteria import Criterion, criteria_of, hold
from ..verdict.thresholds import parse

# How long an operation waits for a connection is its own timeout's business.
_POOL_TIMEOUT = 24 * 3600.0
_CONCURRENCY = 8


@dataclass(frozen=True, slots=True, repr=False)
class ThresholdResults:
    """Whether thresholds hold, to assert; its text has the figures that were found."""

    criteria: tuple[Criterion, ...]

    def __bool__(self) -> bool:
        return all(criterion.passed for criterion in self.criteria)

    def __repr__(self) -> str:
        return ", ".join(
            f"{one.name} {_WORDS[one.outcome]}: found {one.found}"
            f"{f' ({one.reason})' if one.outcome == 'not measured' else ''}"
            for one in self.criteria
        )


_WORDS = {"passed": "holds", "failed": "FAILS", "not measured": "IS NOT MEASURED"}


@dataclass(frozen=True, slots=True, repr=False)
class LoadTestResult(RunResult):
    """What a load in a test found: a `RunResult` that can be asserted."""

    def passes(self, *thresholds: str) -> ThresholdResults:
        """
        Return whether all thresholds hold: `assert result.passes("op_duration:p(95)<50ms")`.

        Raises `ConfigurationError` for a wrong one, its place marked.
        """
        return ThresholdResults(tuple(hold(self, map(parse, thresholds))))

    def __repr__(self) -> str:
        failed = ", ".join(f"{e.count:,} {name}" for name, e in self.errors.items()) or "none"
        return (
            f"<{self.workload}: {self.outcome}, {self.completed:,} operations in "
            f"{self.seconds:.2f} s, {self.throughput:,.0f}/s, failed: {failed}>"
        )


class LoadTestFailed(AssertionError):  # noqa: N818  what it says of the test, in its report
    """A load in a test that was not performed, or of which a threshold does not hold."""

    def __init__(self, result: LoadTestResult, criteria: Iterable[Criterion]) -> None:
        lines = [f"{result!r}"]
        for one in criteria:
            found = f": found {one.found}" if one.found else ""
            # A broken threshold's reason is the figure that was found.
            why = f" ({one.reason})" if one.reason and one.outcome != "failed" else ""
            told = found or (f": {one.reason}" if one.reason else "")
            lines.append(f"  {one.name} {_WORDS[one.outcome]}{told}{why}")
        for name, error in result.errors.items():
            lines.append(f"  {error.count:,} {name}: {error.sample}")
        super().__init__("\n".join(lines))
        self.result = result


class LoadTest:
    """What the fixture is: a coroutine function, and the server that it may have started."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._server: str | None = None

    async def __call__(
        self,
        workload: Workload,
        *,
        sessions: Sessions | None = None,
        read_sessions: Sessions | None = None,
        database_url: str | None = None,
        batch_inserts: bool = False,
        read_autocommit: bool = False,
        stop: Stop | None = None,
        on_progress: OnProgress | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **options: Unpack[RunOptions],
    ) -> LoadTestResult:
        """
        Run the workload in the test's own event loop and return what was found.

        Through `sessions`, which stay the test's, or those that the workload brings; else on
        a schema of its own in `database_url` or in an embedded PostgreSQL, which is started
        once and stopped with the test session; there `batch_inserts` and `read_autocommit` are
        as with the command. `options` are those of `async_loader.run`, with a concurrency
        of 8, and its errors are raised; what operations raise is counted. Where `thresholds` are
        given, one that does not hold, or is not measured, fails the test: `LoadTestFailed`.
        """
        __tracebackhide__ = True
        options.setdefault("concurrency", _CONCURRENCY)
        async with AsyncExitStack() as stack:
            if sessions is None and workload.sessions_hook is not None:
                sessions = workload.sessions_hook()
                for engine in engines_of(sessions):
                    stack.push_async_callback(engine.dispose)
            elif sessions is None and _uses_database(workload):
                if database_url is None:
                    database_url = await asyncio.to_thread(self._embedded)
                schema = _own_schema(
                    parse_url(database_url),
                    options["concurrency"],
                    batch_inserts=batch_inserts,
                    read_autocommit=read_autocommit,
                )
                sessions, read_sessions = await stack.enter_async_context(schema)
            result = await run(
                workload,
                sessions=sessions,
                read_sessions=read_sessions,
                stop=stop,
                on_progress=on_progress,
                clock=clock,
                **options,
            )
        found = LoadTestResult(**{f.name: getattr(result, f.name) for f in fields(result)})
        if thresholds := options.get("thresholds"):
            criteria = [*criteria_of(found), *hold(found, map(parse, thresholds))]
            if not all(one.passed for one in criteria):
                raise LoadTestFailed(found, criteria)
        return found

    def _embedded(self) -> str:
        if self._server is None:
            self._server = self._stack.enter_context(embedded_server()).url
        return self._server


@asynccontextmanager
async def _own_schema(
    url: URL, connections: int, *, batch_inserts: bool, read_autocommit: bool
) -> AsyncIterator[tuple[Sessions, Sessions]]:
    """Yield sessions, and those for reads, on a schema that is dropped at the end."""
    backend = backend_of(url)
    async with backend.run_namespace(url) as namespace:
        engine = backend.create_engine(
            url, pool_size=connections, pool_timeout=_POOL_TIMEOUT, namespace=namespace
        )
        async with closing(engine):
            sessions, read_sessions = backend.session_factories(
                engine, reads_autocommit=read_autocommit
            )
            if batch_inserts:
                enable_batch_inserting(sessions)
            yield sessions, read_sessions


def _uses_database(workload: Workload) -> bool:
    return any("session" in operation.wants for operation in workload.operations.values())
