"""The runs that go on: started, told of, stopped, brought to their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from ..concurrency.tasks import cancel
from ..errors import AsyncLoaderError
from ..settings.run import RunSettings
from ..settings.serve import ServeSettings
from ..settings.spec import spec_of
from .executing import Answer, Execution
from .history import AWAY, NO_HISTORY, History, Row, brief
from .live import Live
from .messages import Note, Now, Phase, Started, Told
from .path_redaction import discreet, discreet_settings, without_folders
from .processes import identity, wait_for_end
from .scenarios import Scenario, UnknownScenarioError, read_scenarios, settings_for
from .targets import Targets, in_our_words

log = logging.getLogger("async_loader.service")

_HIDDEN = {"database_url", "server_directory", "config", "debug", "progress", "baseline"} | {
    "out",
    "html",
    "junit",
    "every",
    "on_target",
}
# How long a history that answers, and refuses a result, is asked again.
_PATIENCE = 60.0
# How long one that does not answer is asked again where the service is to end.
_LAST_PATIENCE = 10.0
# Beyond its grace, for who is asked to end: to count, and to remove what is its own.
_ASKED = 10.0
# For who is told to, and need not wait for anything. Then its process is killed.
_TOLD = 10.0
# The most of a grace that a limit waits for.
_MOST_GRACE = 60.0
# For the target's server to remove what a dead run left.
_CLEANING = 60.0


class Running:
    """A run that goes on: its process, and what it tells."""

    def __init__(self, number: int, scenario: str, target: str) -> None:
        self.number = number
        self.scenario = scenario
        self.target = target
        self.live = Live()
        self.execution = Execution(self._heard)
        self._asked = asyncio.Event()
        self._told = asyncio.Event()
        self._fresh = asyncio.Event()
        self.process: dict[str, Any] | None = None

    def _heard(self, message: Told) -> None:
        match message:
            case Started(pid=pid):
                self.process = identity(pid)
            case Phase(phase=phase):
                self.live.phase = phase
                self.live.add("phase", {"phase": phase})
            case Now(snapshot=snapshot):
                self.live.snapshot = snapshot
                self.live.add("snapshot", snapshot)
            case Note(text=text):
                self.live.add("note", {"note": without_folders(text)})
        self._fresh.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._asked.is_set()

    def stop(self, by: str) -> None:
        """Ask it to end; when asked again it is told not to wait for anything."""
        (self._told if self.stopping else self._asked).set()
        self.execution.stop(by)

    async def insist(self, grace: float) -> None:
        """See that it ends in bounded time once it was asked to: asked, told, killed."""
        await self._asked.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(grace, _MOST_GRACE) + _ASKED):
                await self._told.wait()
        if not self._told.is_set():
            self.stop("the service")
        await asyncio.sleep(_TOLD)
        log.warning("run %d: does not end, and is killed", self.number)
        self.execution.kill()

    def told_so_far(self) -> str | None:
        """Return what was measured until now, for one that can say nothing any more."""
        if (now := self.live.snapshot) is None:
            return None
        done = f"{now['completed']:,} operations had ended well, {now['bad']:,} badly"
        return f"until {now['seconds']:.0f} s {done}"

    async def save(self, history: History) -> None:
        """Write down what it tells, as often as the database can, until cancelled."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            live = self.live
            with suppress(*NO_HISTORY):  # it is told again in a second
                await history.change(
                    self.number, process=self.process, phase=live.phase, snapshot=live.snapshot
                )


class Runs:
    """
    The runs of a service, each a task of its own: whoever asked for one may go.

    `draining` once no more are let in.
    """

    def __init__(self, history: History, targets: Targets, settings: ServeSettings) -> None:
        self._history = history
        self._targets = targets
        self._settings = settings
        self._tasks: set[asyncio.Task[None]] = set()
        self.running: dict[int, Running] = {}
        self.draining = False

    async def start(
        self,
        scenario: str,
        target: str,
        overrides: Mapping[str, Any],
        *,
        by: str,
        scheduled: bool = False,
    ) -> int:
        """
        Start a run and return its number.

        Raises `ConfigurationError` for what cannot run so, `TargetBusyError` where a run is on
        the target.
        """
        if self.draining:
            raise AsyncLoaderError("the service is about to end")
        if not self._history.held:
            raise AsyncLoaderError("another service may use this history now")
        settings = await asyncio.to_thread(self._settings_of, scenario, target, overrides)
        number = await self._history.add(
            {
                "scenario": scenario,
                "target": target,
                "overrides": dict(overrides),
                "settings": shown(settings),
                "started_by": by,
                "scheduled": int(scheduled),
            }
        )
        log.info("run %d: %s on %s, by %s", number, scenario, target, by)
        self.running[number] = Running(number, scenario, target)
        self._spawn(self._bring_to_end(self.running[number], settings))
        return number

    def busy(self) -> set[str]:
        """Return the targets with a run of ours."""
        return {run.target for run in self.running.values()}

    async def stop(self, number: int, *, by: str) -> bool:
        """Ask a run to end: it drains, and when asked again it does not wait; False: it has."""
        run = self.running.get(number)
        if run is None:
            return False
        run.stop(_for_everybody(by))
        await self._history.stop(number, by)
        return True

    async def drain(self) -> None:
        """Let no more runs in, end those that go on, and wait for their results."""
        self.draining = True
        for run in list(self.running.values()):
            if not run.stopping:  # who is asked twice does not drain
                with suppress(*NO_HISTORY):
                    await self.stop(run.number, by="the service's end")
        while self._tasks:
            await asyncio.wait(self._tasks)

    def hurry(self) -> None:
        """Wait for no operation of the runs that go on."""
        for run in self.running.values():
            run.stop("the service's end")

    async def recover(self) -> None:
        """End the runs of a service that was killed; what they left is removed meanwhile."""
        for row in await self._history.unfinished():
            if row["state"] in ("running", "stopping"):
                why = ["the service died meanwhile"]
                await self._history.end(row["id"], "interrupted", why, release=False)
                await self._history.note("service", "interrupted", row["id"])
                log.info("run %d: interrupted, as the service died", row["id"])
            self._spawn(self._clean_up_after(row))

    def check(self, scenario: Scenario, target: str) -> None:
        """Raise `ConfigurationError` for a scenario that can never be run on a target; blocks."""
        settings_for(
            scenario, {}, url=self._targets.url_for_run(target), directory=self._targets.directory
        )

    def _settings_of(self, scenario: str, target: str, overrides: Mapping[str, Any]) -> RunSettings:
        found = read_scenarios(self._settings.config_dir).get(scenario)
        if found is None:
            raise UnknownScenarioError(f"no scenario {scenario!r}")
        return settings_for(
            found,
            overrides,
            url=self._targets.url_for_run(target),
            directory=self._targets.directory,
        )

    async def _bring_to_end(self, run: Running, settings: RunSettings) -> None:
        saving = asyncio.create_task(run.save(self._history))
        limiting = asyncio.create_task(self._limit(run))
        insisting = asyncio.create_task(run.insist(settings.grace))
        try:
            answer = await run.execution.perform(spec_of(settings))
        finally:
            await cancel(saving, limiting, insisting)
        await self._keep(run, answer)

    async def _limit(self, run: Running) -> None:
        """Stop a run that takes too long."""
        await asyncio.sleep(self._settings.max_duration)
        await self.stop(run.number, by=f"the limit of {self._settings.max_duration:g} s")

    async def _keep(self, run: Running, answer: Answer) -> None:
        """Keep what there is, tell the watchers, and let the next run onto the target."""
        log.info("run %d: %s", run.number, "; ".join([answer["state"], *answer["reasons"]]))
        # Of a run with a result its process knows the names, which are no paths.
        known = "document" in answer
        said = [in_our_words(reason) for reason in answer["reasons"]]
        reasons = said if known else discreet(said)
        if answer["state"] == "error":
            if so_far := run.told_so_far():
                reasons.append(so_far)
            await self._clean(run.target)
        try:
            await self._retried(
                run,
                lambda: self._history.end(
                    run.number,
                    answer["state"],
                    reasons,
                    figures=answer.get("figures"),
                    document=answer.get("document"),
                ),
            )
        finally:
            self.running.pop(run.number)
            run.live.end(answer["state"], reasons)
        with suppress(*NO_HISTORY):  # the next run's end does it
            await self.prune()

    async def _retried(self, run: Running, write: Callable[[], Awaitable[None]]) -> None:
        """
        Write a run's end as soon as the history takes it, however long its disk is full.

        What it refuses for another reason is kept without its result; who ends the service has
        not all day.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            try:
                return await write()
            except NO_HISTORY as error:
                waited = loop.time() - since
                log.warning("run %d: its end cannot be kept yet: %s", run.number, brief(error))
                if self.draining and waited > _LAST_PATIENCE:
                    raise
                if waited > _PATIENCE and not isinstance(error, AWAY):
                    lost = [f"its result could not be kept: {brief(error)}"]
                    return await self._history.end(run.number, "error", lost)
                await asyncio.sleep(min(10.0, 1.0 + waited / 10))

    async def prune(self) -> None:
        """Forget what is too old or too much."""
        await self._history.prune(
            keep_runs=self._settings.keep_runs, keep_for=self._settings.keep_for
        )

    async def _clean_up_after(self, row: Row) -> None:
        """Free a dead service's target: its run's process gone, its tables removed."""
        if row["process"] is not None:
            await wait_for_end(row["process"])
        if row["target"] in self._targets:
            await self._clean(row["target"])
        await self._history.release(row["id"])

    async def _clean(self, target: str) -> None:
        try:
            async with asyncio.timeout(_CLEANING):
                await self._targets.clean(target)
        except (AsyncLoaderError, TimeoutError) as error:
            log.warning("%s could not be cleaned; the next run does: %s", target, error)
        except Exception:
            log.exception("%s could not be cleaned; the next run does", target)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a run's end was not kept: %s", error, exc_info=error)


def _for_everybody(by: str) -> str:
    """Return who it was without an address: reports are passed on."""
    return by.partition(" (")[0]


def shown(settings: RunSettings) -> dict[str, Any]:
    """Return a run's settings without what is secret or of this machine."""
    return discreet_settings(settings.model_dump(mode="json", exclude=_HIDDEN))
