"""
Arguments to exit code.

The only place with signal handlers, the choice of an event loop, and a terminal.

Exit codes: 0 performed, measured, and all that was asked holds · 1 too many operations failed, or
none succeeded any more · 98 a figure got worse than the baseline allows · 99 failed: a threshold
does not hold, or the work was not performed · 104 usage or configuration · 105 stopped by a signal
· 107 the workload cannot be used, or its set-up raised · 110 database unreachable or refused · 112
not measured · 113 a process of the run died · 114 a cluster that cannot be used
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import AsyncLoaderError, WorkloadError
from ..load.app import Finished, give_back
from ..load.baselines import held_against, read_baselines
from ..load.progress import progress_view
from ..load.shards import run_as_asked
from ..load.specs.load_test import LoadTestSpec
from ..load.workloads import BUILT_IN
from ..reports import comparison as comparison_report
from ..reports import console as console_report
from ..reports import inserts as inserts_report
from ..reports import sweep as sweep_report
from ..reports.comparison import group
from ..reports.forms import COMPARE_FORMS, RUN_FORMS, SWEEP_FORMS, Forms
from ..results.run import RunResult
from ..runtime.event_loop import told_left
from ..runtime.outputs import DONE, check_outputs, complain, show, write_job_summary, write_outputs
from ..runtime.process import Signals, Work, leave_errors_to_the_report, run_until_stopped
from ..runtime.streams import give_up, kept_streams, stderr, stdout, tell
from ..runtime.under_way import under_way
from ..service.command import run_serve_command
from ..settings.ingest import IngestSettings
from ..settings.init import InitSettings
from ..settings.jobs import JOB_COMMANDS
from ..settings.report import ReportSettings, SchemaSettings
from ..settings.run import CompareSettings, InsertsSettings, RunSettings
from ..settings.serve import ServeSettings
from ..settings.sources import in_flags, load
from ..settings.spec import spec_of
from ..settings.sweep import SweepSettings
from ..verdict.knee import advise, is_undecided
from ..verdict.verdict import FAILED, LOST, NOT_MEASURED, STOPPED, TOO_MANY_FAILED, judge, worst
from ..workers.supervision import Ended, Line, Lost, ended, supervise, watched_by
from .calibrate import calibrate
from .compare import check, compare
from .ingest import run_ingest_command
from .init import run_init
from .inserts import measure
from .jobs import run_job_command
from .report import print_schema, run_report, summary
from .sweep import sweep

INSERTS_FORMS: Forms = {"json": inserts_report.render_json}

Baselines = Mapping[str, RunResult]  # by the names of their files


def main(argv: Sequence[str]) -> int:
    """Run the command that the arguments name; return its exit code."""
    debug = "--debug" in argv

    def command() -> int:
        nonlocal debug
        settings = load(argv)
        debug = settings.debug
        return _COMMANDS[settings.command](settings)

    with kept_streams():
        return _code_of(command, lambda: debug)


def _code_of(command: Callable[[], int], debug: Callable[[], bool]) -> int:
    """Return the exit code of a command, whatever it raises."""
    try:
        return command()
    except (KeyboardInterrupt, asyncio.CancelledError):
        return complain("stopped", STOPPED)
    except AsyncLoaderError as error:
        if debug():
            traceback.print_exc()
        return _complain_of(error)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        give_up(stdout())
        return TOO_MANY_FAILED
    except Exception as error:
        if debug():
            raise
        return complain(
            f"an unexpected {type(error).__name__}: {error} (--debug shows where)", TOO_MANY_FAILED
        )


def _complain_of(error: AsyncLoaderError, code: int = DONE) -> int:
    """Say an error in the words of the command line; return the code, or else the error's."""
    return complain(in_flags(str(error)), code or error.exit_code)


def _run(settings: RunSettings) -> int:
    if settings.calibrate:
        return _calibrate(settings)
    check_outputs(settings.outputs, RUN_FORMS)
    spec = spec_of(settings)
    baselines = read_baselines(spec.baseline)
    if not settings.debug:
        leave_errors_to_the_report()
    debugging = settings.debug and sys.stdin is not None and sys.stdin.isatty()
    if settings.workload in BUILT_IN or debugging:
        return _run_here(settings, spec, baselines, None)

    def work(line: Line) -> int:
        code = _code_of(lambda: _run_here(settings, spec, baselines, line), lambda: settings.debug)
        return ended(code, line)

    return supervise(
        work,
        lambda lost: Ended(_report_lost(settings, spec, baselines, lost)),
        op_timeout=settings.op_timeout,
        grace=settings.grace,
    ).code


def _run_here(
    settings: RunSettings, spec: LoadTestSpec, baselines: Baselines, line: Line | None
) -> int:
    with Signals() as signals, watched_by(line, signals, settings.op_timeout, settings.grace):
        with progress_view(stderr(), settings.progress) as view:
            finished = _finished(
                signals,
                lambda stop: run_as_asked(
                    spec,
                    stop=stop,
                    on_progress=view.update,
                    say=view.phase,
                    note=view.note,
                ),
                settings.loop,
            )
        code = _report(settings, spec, baselines, finished.result)
        if finished.cleanup_error is not None:
            code = _complain_of(finished.cleanup_error, code)
        code = STOPPED if signals.stop.requested.is_set() else code
    if signals.survived:
        went_on = ", ".join(dict.fromkeys(signals.survived))
        complain(f"the run went on after what ends an event loop: {went_on}", code)
    if signals.left:
        complain(f"left behind: {told_left(signals.left)}", code)
    return code


def _finished(signals: Signals, work: Work[Finished], loop: str) -> Finished:
    """Return what came of a run; of one that was cancelled what is known of it."""
    try:
        return signals.run(work, loop)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
        partial = under_way.result("interrupted")
        if partial is None:
            raise
        # Operations' own are counted: this one comes of somebody's handler of a signal.
        by = "a SystemExit" if isinstance(error, SystemExit) else None
        return Finished(replace(partial, stopped_by=signals.stop.by or by))


def _report(
    settings: RunSettings, spec: LoadTestSpec, baselines: Baselines, result: RunResult
) -> int:
    result = held_against(baselines, result, spec.baseline)
    code = write_outputs(settings.outputs, RUN_FORMS, result, _say_verdict(result))
    write_job_summary(settings.outputs, RUN_FORMS, result)
    shown = show(summary(console_report.render, result), settings.outputs)
    return code or shown


def _report_lost(
    settings: RunSettings, spec: LoadTestSpec, baselines: Baselines, lost: Lost
) -> int:
    """Report a run that could not do so itself, and give back what it used."""
    hook = {"set-up": "set-up", "tear-down": "tear-down"}.get(lost.stage)
    code = WorkloadError.exit_code if hook else LOST
    if lost.result is not None:
        code = _report(settings, spec, baselines, lost.result) or code
    what = f"the {hook} of the workload" if hook else "the run"
    complain(f"{what} was ended from outside: {lost.how}", code)
    if lost.own_server:
        give_back(spec)
    return code


def _performed(results: Iterable[RunResult]) -> tuple[list[RunResult], int]:
    """Return the runs, those before an error too, and the exit code of that."""
    runs: list[RunResult] = []
    try:
        for result in results:
            runs.append(result)  # noqa: PERF402  those before an error are to be kept
    except AsyncLoaderError as error:
        return runs, _complain_of(error)
    return runs, DONE


def _compare(settings: CompareSettings) -> int:
    check_outputs(settings.outputs, COMPARE_FORMS)
    check(settings)
    runs, code = _performed(compare(settings, tell))
    if not runs:
        return code or STOPPED
    judged = _say_verdict(*runs)
    if len(runs) < settings.rounds * len(settings.modes):
        judged = STOPPED
    compared = group(runs)
    code = write_outputs(settings.outputs, COMPARE_FORMS, compared, code or judged)
    write_job_summary(settings.outputs, COMPARE_FORMS, compared)
    shown = show(summary(comparison_report.render, compared), settings.outputs)
    return code or shown


def _calibrate(settings: RunSettings) -> int:
    check_outputs(settings.outputs, COMPARE_FORMS)
    runs, code = _performed(calibrate(settings, tell))
    if not runs:
        return code or STOPPED
    full, *below = runs
    code = code or _say_verdict(full)
    if below:
        code = code or _code_of_steps(below, settings.latency_limit)
    elif full.outcome == "done":
        code = code or STOPPED
    code = write_outputs(settings.outputs, COMPARE_FORMS, sweep_report.calibrated(runs), code)
    shown = show(summary(sweep_report.render_calibration, runs), settings.outputs)
    return code or shown


def _sweep(settings: SweepSettings) -> int:
    check_outputs(settings.outputs, SWEEP_FORMS)
    steps, code = _performed(sweep(settings, tell))
    if not steps:
        return code or STOPPED
    code = code or _code_of_steps(steps, settings.latency_limit)
    code = write_outputs(settings.outputs, SWEEP_FORMS, steps, code)
    write_job_summary(settings.outputs, SWEEP_FORMS, steps)
    shown = show(summary(sweep_report.render, steps), settings.outputs)
    return code or shown


def _code_of_steps(steps: Sequence[RunResult], latency_limit: float | None) -> int:
    """Return the exit code of several loads, and say why where none of them is good."""
    if steps[-1].outcome == "interrupted":
        return STOPPED
    if steps[-1].outcome in ("hung", "lost"):  # that is no knee
        return _say_verdict(steps[-1])
    if advise(steps, latency_limit) is not None:
        return DONE
    if is_undecided(steps, latency_limit):
        return complain("not measured: no step is good", NOT_MEASURED)
    return complain("failed: no step is good", FAILED)


def _inserts(settings: InsertsSettings) -> int:
    check_outputs(settings.outputs, INSERTS_FORMS)
    measures = run_until_stopped(lambda _stop: measure(settings), "auto", stock_collector=True)
    code = write_outputs(settings.outputs, INSERTS_FORMS, measures, DONE)
    shown = show(
        partial(inserts_report.render, measures, latency=settings.latency), settings.outputs
    )
    return code or shown


def _say_verdict(*results: RunResult) -> int:
    """Say on stderr what a pipeline shows last, and return the exit code of the worst."""
    verdict = worst(map(judge, results))
    if verdict.remarks and (verdict.word != "passed" or verdict.beside):
        complain(in_flags(verdict.sentence), verdict.exit_code)
    return verdict.exit_code


_COMMANDS: dict[str, Callable[[Any], int]] = {
    RunSettings.command: _run,
    CompareSettings.command: _compare,
    SweepSettings.command: _sweep,
    InsertsSettings.command: _inserts,
    ReportSettings.command: run_report,
    SchemaSettings.command: print_schema,
    InitSettings.command: run_init,
    IngestSettings.command: run_ingest_command,
    ServeSettings.command: run_serve_command,
    **{model.command: run_job_command for model in JOB_COMMANDS},
}
