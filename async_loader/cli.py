"""
Arguments to exit code.

The only place with signal handlers, the choice of an event loop, and a terminal.

Exit codes: 0 done · 1 too many operations failed, or none succeeded any more · 99 a threshold
does not hold · 104 usage or configuration · 105 stopped by a signal · 107 the workload's set-up
raised · 110 database unreachable or refused
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .app import run_workload
from .compare import check, compare
from .errors import AsyncLoaderError, ConfigurationError
from .progress import progress_view
from .reports import comparison as comparison_report
from .reports import console as console_report
from .reports import json as json_report
from .results import RunResult
from .runtime import Signals, leave_errors_to_the_report
from .settings import CompareSettings, RunSettings
from .settings_sources import load
from .thresholds import verdicts_of

DONE = 0
TOO_MANY_FAILED = 1
STOPPED = 105
THRESHOLD = 99


def main(argv: Sequence[str]) -> int:
    """Run the command that the arguments name; return its exit code."""
    debug = "--debug" in argv
    try:
        settings = load(argv)
        debug = settings.debug
        match settings:
            case CompareSettings():
                return _compare(settings)
            case _:
                assert isinstance(settings, RunSettings)
                return _run(settings)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _complain("stopped", STOPPED)
    except AsyncLoaderError as error:
        if debug:
            traceback.print_exc()
        return _complain(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TOO_MANY_FAILED
    except Exception as error:
        if debug:
            raise
        return _complain(
            f"an unexpected {type(error).__name__}: {error} (--debug shows where)", TOO_MANY_FAILED
        )


def _run(settings: RunSettings) -> int:
    _check_outputs(settings.out)
    if not settings.debug:
        leave_errors_to_the_report()
    with Signals() as signals:
        with progress_view(sys.stderr, settings.progress) as view:
            finished = signals.run(
                lambda stop: run_workload(
                    settings, stop=stop, on_progress=view.update, say=view.phase
                ),
                settings.loop,
            )
        result = finished.result
        shown = _show(partial(console_report.render, result), settings.out)
        code = _verdict(result, settings) or shown
        code = _write_outputs(settings.out, json_report.render(result), code)
        if finished.cleanup_error is not None:
            code = _complain(str(finished.cleanup_error), code or finished.cleanup_error.exit_code)
        return STOPPED if signals.stop.requested.is_set() else code


def _compare(settings: CompareSettings) -> int:
    _check_outputs(settings.out)
    check(settings)
    runs: list[RunResult] = []
    code = DONE

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        for result in compare(settings, say):
            runs.append(result)
            code = code or _verdict(result, settings)
    except AsyncLoaderError as error:
        code = _complain(str(error), error.exit_code)
    if not runs:
        return code or STOPPED
    shown = _show(partial(comparison_report.render, runs), settings.out)
    code = code or shown
    if len(runs) < settings.rounds * len(settings.modes):
        code = code or STOPPED
    return _write_outputs(settings.out, json_report.render_comparison(runs), code)


def _check_outputs(outputs: Sequence[str]) -> None:
    """Refuse, before any work is done, an output whose folder cannot be written to."""
    for output in outputs:
        path = output.partition("=")[2]
        folder = Path(path).absolute().parent
        if path != "-" and (not os.access(folder, os.W_OK) or Path(path).is_dir()):
            raise ConfigurationError(f"--out {output}: cannot write a file there")


def _show(render: Callable[..., str], outputs: Sequence[str]) -> int:
    """
    Print a summary on stdout, or on stderr where stdout is an output's.

    Return 0, or 1 where that failed: the outputs are written all the same.
    """
    stream = sys.stderr if any(output.endswith("=-") for output in outputs) else sys.stdout
    terminal = stream.isatty()
    width = shutil.get_terminal_size().columns if terminal else 80
    color = terminal and "NO_COLOR" not in os.environ
    try:
        stream.write(render(width=width, color=color))
        stream.flush()
    except OSError as error:
        # Nothing more can be written there, not what is in the buffer either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _complain(f"the summary could not be printed: {error.strerror}", TOO_MANY_FAILED)
    return DONE


def _write_outputs(outputs: Sequence[str], document: str, code: int) -> int:
    """Write the document wherever it is wanted; return the code, or 1 where that failed."""
    for output in outputs:
        try:
            _write(output.partition("=")[2], document)
        except OSError as error:
            code = code or TOO_MANY_FAILED
            _complain(f"--out {output} could not be written: {error.strerror}", code)
    return code


def _verdict(result: RunResult, settings: RunSettings | CompareSettings) -> int:
    if result.outcome == "interrupted":
        return STOPPED
    if result.outcome == "aborted":
        return _complain(
            f"gave up: no operation has succeeded for {settings.give_up:g} s (--give-up); "
            f"the most frequent error: {next(iter(result.errors))}",
            TOO_MANY_FAILED,
        )
    if result.error_rate > settings.max_error_rate:
        return _complain(
            f"{result.error_rate:.2%} of the operations failed, more than --max-error-rate "
            f"{settings.max_error_rate:.2%}",
            TOO_MANY_FAILED,
        )
    broken = [verdict for verdict in verdicts_of(result) if not verdict.passed]
    if broken:
        names = ", ".join(verdict.threshold.text for verdict in broken)
        return _complain(f"a threshold does not hold: {names}", THRESHOLD)
    return DONE


def _write(path: str, text: str) -> None:
    """Write a file as a whole or not at all; `-` is stdout."""
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a pipe or /dev/null cannot be replaced
        target.write_text(text, encoding="utf-8")
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"async_loader: {message}\n")
    return code
