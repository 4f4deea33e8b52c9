"""`async_loader serve` as a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from .conftest import PROOF

ROOT = Path(__file__).parents[2]


class ServiceProcess:
    """A service in a process of its own, which listens once this is made."""

    def __init__(self, folder: Path, *argv: str, env: Mapping[str, str] | None = None) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ASYNC_LOADER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "async_loader", "serve", "--port", "0", *argv],
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**kept, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self.client = httpx.Client(base_url=self._address(), headers=PROOF, timeout=30)

    def _address(self) -> str:
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if "listening on " in line:
                return line.rsplit(maxsplit=1)[-1]
        self._process.wait()
        self.stderr.close()
        raise AssertionError(said)

    @property
    def stderr(self) -> IO[str]:
        """What it says."""
        assert self._process.stderr is not None
        return self._process.stderr

    def start(self, scenario: str, target: str = "one", **overrides: Any) -> int:
        """Start a run; return its number."""
        body = {"scenario": scenario, "target": target, "overrides": overrides}
        answer = self.client.post("/api/runs", json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def until(self, number: int, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something holds of a run; return its document."""
        until = time.monotonic() + 60
        while True:
            run: dict[str, Any] = self.client.get(f"/api/runs/{number}").json()
            if holds(run):
                return run
            assert time.monotonic() < until, run
            time.sleep(0.05)

    def under_way(self, number: int) -> dict[str, Any]:
        """Wait until a run's operations are counted in the history."""
        return self.until(number, lambda run: (run["snapshot"] or {}).get("completed", 0) > 0)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that are its children, and theirs."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        code = self._process.wait(60)
        self.client.close()
        self.stderr.close()
        return code


@contextmanager
def service_process(
    folder: Path, *argv: str, env: Mapping[str, str] | None = None
) -> Iterator[ServiceProcess]:
    """Yield a service, which is ended where the test does not."""
    service = ServiceProcess(folder, *argv, env=env)
    try:
        yield service
    finally:
        if not service.client.is_closed:
            service.send(signal.SIGTERM)
            service.send(signal.SIGTERM)
            assert service.wait() == 0
