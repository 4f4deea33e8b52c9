"""What a worker process does for the service: a run from its spec to its verdict, or a job."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy.engine import URL

from ..concurrency.stop import Stop
from ..database.backends import backend_of
from ..database.postgresql import closing
from ..database.urls import parse_url
from ..errors import AsyncLoaderError
from ..jobs import BatchJob
from ..jobs.targets import load_job
from ..load.app import Finished
from ..load.baselines import held_against, read_baselines
from ..load.metrics.snapshot import Snapshot
from ..load.shards import run_as_asked
from ..load.specs.load_test import LoadTestSpec
from ..reports.console import load_model
from ..results.run import RunResult
from ..runtime.process import leave_errors_to_the_report, loop_factory, spare_the_garbage_collector
from ..verdict.document import document_of
from ..verdict.verdict import judge
from ..workers import Arrived, Halt, Link, read
from .messages import Note, Now, Phase, Started
from .path_redaction import discreet, names_of, published

# A little less than a second: what is told every half second is passed on every other time.
_TELL_EVERY = 0.9
# One worker's, the heartbeat's, and those for short reads of the progress.
_JOB_CONNECTIONS = 4


def perform(link: Link, spec: LoadTestSpec) -> dict[str, Any]:
    """
    Perform the run; return how it ended.

    `state` and `reasons` are there in any case, `document` (the result as JSON, by zlib) and
    `figures` where there is a result. Up go the `messages`; what comes down is a request to stop.
    """
    link.tell(Started(os.getpid()))
    leave_errors_to_the_report()
    try:
        baselines = read_baselines(spec.baseline)
        with asyncio.Runner(loop_factory=loop_factory(spec.loop)) as runner:
            spare_the_garbage_collector()
            finished = runner.run(_run(link, spec))
    except asyncio.CancelledError:
        return {"state": "stopped", "reasons": ["stopped before it had begun"]}
    except AsyncLoaderError as error:
        return {"state": "error", "reasons": [str(error)]}
    return _answer(finished, held_against(baselines, finished.result, spec.baseline))


async def _run(link: Link, spec: LoadTestSpec) -> Finished:
    stop = Stop()
    loop = asyncio.get_running_loop()
    teller = _Teller(link)
    running = asyncio.ensure_future(
        run_as_asked(
            spec,
            stop=stop,
            on_progress=teller.update,
            say=teller.phase,
            note=lambda text: link.tell(Note(text)),
        )
    )

    def heard(message: Arrived | None) -> None:
        stop.request((message and read(message, Halt).by) or "the service")
        if message is None:  # nobody waits for the result
            stop.request()
        if not stop.heeded:
            running.cancel()

    link.listen(lambda message: loop.call_soon_threadsafe(heard, message))
    return await running


class _Teller:
    """Passes on each phase, and a snapshot once a second."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._told = -1.0
        self._untold: Snapshot | None = None

    def phase(self, phase: str) -> None:
        """Pass it on, behind the last snapshot of the phase that has ended."""
        if self._untold is not None:
            self._tell(self._untold)
        self._link.tell(Phase(phase))

    def update(self, snapshot: Snapshot) -> None:
        """Pass it on, unless one of this second was; a new phase's clock begins at 0."""
        self._untold = snapshot
        if snapshot.seconds < self._told or snapshot.seconds - self._told >= _TELL_EVERY:
            self._tell(snapshot)

    def _tell(self, snapshot: Snapshot) -> None:
        self._told, self._untold = snapshot.seconds, None
        self._link.tell(Now(asdict(snapshot)))


def _answer(finished: Finished, result: RunResult) -> dict[str, Any]:
    found = judge(result)
    names = names_of(result)
    result = published(result)
    reasons = list(found.remarks)
    if finished.cleanup_error is not None:
        reasons.append(str(finished.cleanup_error))
    document = json.dumps(document_of(result), separators=(",", ":")).encode()
    return {
        "state": found.word,
        "reasons": discreet(reasons, names),
        # Of one that passed, too: whoever looks at it is to know.
        "figures": {
            **figures_of(result),
            "measurement": "not good" if found.beside else "good",
            "doubts": list(found.beside),
        },
        "document": zlib.compress(document),
    }


def figures_of(result: RunResult) -> dict[str, Any]:
    """Return what a list of runs shows of a result."""
    latency = result.latency().summary_ms()
    return {
        "outcome": result.outcome,
        "workload": result.workload,
        "load": load_model(result),
        "seconds": result.seconds,
        "completed": result.completed,
        "failed": result.failed,
        "indeterminate": result.indeterminate,
        "dropped": result.dropped,
        "throughput": result.throughput,
        "error_rate": result.error_rate,
        **{f"{p}_ms": latency[p] if result.completed else None for p in ("p50", "p95", "p99")},
    }


def resume_job(link: Link, code: str, url: str, arguments: Mapping[str, str]) -> str:
    """Go on with a job until it is done, or somebody asks for its end; return its state."""
    leave_errors_to_the_report()
    job = load_job(code)
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        return runner.run(_resume(link, job, parse_url(url), arguments))


async def _resume(link: Link, job: BatchJob, url: URL, arguments: Mapping[str, str]) -> str:
    stop = Stop()
    loop = asyncio.get_running_loop()

    link.listen(lambda _message: loop.call_soon_threadsafe(stop.request))
    backend = backend_of(url)
    async with closing(backend.create_engine(url, pool_size=_JOB_CONNECTIONS)) as engine:
        sessions, _ = backend.session_factories(engine, reads_autocommit=False)
        status = await job.run(sessions, arguments=arguments, stop=stop)
        return status.state
