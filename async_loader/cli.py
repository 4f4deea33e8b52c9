"""
Arguments to exit code.

The only place with signal handlers, the choice of an event loop, and a terminal.

Exit codes: 0 done · 1 too many operations failed · 104 usage or configuration ·
105 stopped by a signal · 107 the workload's set-up raised · 110 database unreachable or refused
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .app import run_workload
from .errors import AsyncLoaderError, ConfigurationError, MissingExtraError
from .limits import Stop
from .progress import progress_view
from .reports import console as console_report
from .reports import json as json_report
from .results import RunResult
from .settings import GeneralOptions, RunSettings
from .settings_sources import load

T = TypeVar("T")

DONE = 0
TOO_MANY_FAILED = 1
STOPPED = 105

_PATIENCE = 2


def main(argv: Sequence[str]) -> int:
    """Run the command that the arguments name; return its exit code."""
    debug = "--debug" in argv
    try:
        settings = load(argv)
        debug = settings.debug
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


def _run(settings: GeneralOptions) -> int:
    assert isinstance(settings, RunSettings)
    _check_outputs(settings.out)
    _spare_the_garbage_collector()
    with (
        progress_view(sys.stderr, settings.progress) as view,
        asyncio.Runner(loop_factory=_loop_factory(settings.loop)) as runner,
    ):
        finished = runner.run(
            _stoppable(
                lambda stop: run_workload(
                    settings, stop=stop, on_progress=view.update, say=view.phase
                )
            )
        )
    code = _report(finished.result, settings)
    if finished.cleanup_error is None:
        return code
    return _complain(str(finished.cleanup_error), code or finished.cleanup_error.exit_code)


async def _stoppable(work: Callable[[Stop], Coroutine[Any, Any, T]]) -> T:
    """
    Run, and let SIGINT and SIGTERM end it: first drain, then at once, then without mercy.

    Before the run there is nothing to drain: the first signal ends it there.
    """
    stop = Stop()
    task = asyncio.ensure_future(work(stop))
    asked = 0

    def on_signal() -> None:
        nonlocal asked
        asked += 1
        stop.request()
        if asked > _PATIENCE or not stop.heeded:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return await task


def _loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return how to make the event loop; None is asyncio's own."""
    if choice == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415  it does not exist everywhere
    except ImportError:
        if choice == "uvloop":
            raise MissingExtraError("--loop uvloop", "cli") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _spare_the_garbage_collector() -> None:
    """
    Let it pass by what lives as long as the process, and look less often.

    An ORM operation makes hundreds of short-lived objects, each some hundredth of a
    collection that walks all modules: 15 % of the CPU of a mixed operation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _check_outputs(outputs: Sequence[str]) -> None:
    """Refuse, before any work is done, an output whose folder cannot be written to."""
    for output in outputs:
        path = output.partition("=")[2]
        folder = Path(path).absolute().parent
        if path != "-" and (not os.access(folder, os.W_OK) or Path(path).is_dir()):
            raise ConfigurationError(f"--out {output}: cannot write a file there")


def _report(result: RunResult, settings: RunSettings) -> int:
    """Print the summary, write the outputs and return the verdict."""
    to_stdout = any(output.endswith("=-") for output in settings.out)
    stream = sys.stderr if to_stdout else sys.stdout
    terminal = stream.isatty()
    width = shutil.get_terminal_size().columns if terminal else 80
    color = terminal and "NO_COLOR" not in os.environ
    stream.write(console_report.render(result, width=width, color=color))
    stream.flush()
    code = _verdict(result, settings)
    for output in settings.out:
        try:
            _write(output.partition("=")[2], json_report.render(result))
        except OSError as error:
            code = code or TOO_MANY_FAILED
            _complain(f"--out {output} could not be written: {error.strerror}", code)
    return code


def _verdict(result: RunResult, settings: RunSettings) -> int:
    if result.outcome == "interrupted":
        return STOPPED
    if result.error_rate > settings.max_error_rate:
        return _complain(
            f"{result.error_rate:.2%} of the operations failed, more than --max-error-rate "
            f"{settings.max_error_rate:.2%}",
            TOO_MANY_FAILED,
        )
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
