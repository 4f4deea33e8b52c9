"""`python -m async_loader` as a process that is signalled, killed and watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


class Process:
    """A run of the command; what it prints is text."""

    def __init__(
        self, *argv: str, cwd: Path, stdout: IO[str] | int = subprocess.PIPE, group: bool = False
    ) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ASYNC_LOADER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "async_loader", *argv],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            process_group=0 if group else None,
            env={**kept, "PYTHONPATH": str(ROOT)},
        )
        self._output = ""
        self._errors: list[str] = []

    @property
    def pid(self) -> int:
        """The process's id, and where it leads a group that one's."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait for something that it does, while it lives."""
        while not happened():
            assert self.code is None, self.end()
            time.sleep(0.02)

    def wait_for(self, line: str) -> None:
        """Read what it says on stderr until there is a line with this in it."""
        assert self._process.stderr is not None
        for found in self._process.stderr:
            self._errors.append(found)
            if line in found:
                return
        raise AssertionError(f"never said {line!r}: {''.join(self._errors)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def first_line(self) -> str:
        """Wait for the first line on stdout."""
        assert self._process.stdout is not None
        self._output = self._process.stdout.readline()
        return self._output

    def end(self, timeout: float = 45) -> tuple[str, str]:
        """Wait for its end; return what it printed on stdout and on stderr."""
        try:
            output, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return self._output + (output or ""), "".join(self._errors) + errors
