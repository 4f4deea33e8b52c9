"""A Dask cluster of real processes on the loopback, whose logs can be read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


_HIDING = """
import sys

class Hiding:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "async_loader":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hiding)
"""


class DaskCluster:
    """A scheduler, and workers that are started one by one, each with what can be imported."""

    def __init__(
        self, folder: Path, protocol: str = "tcp", *, path: Path | str = ROOT, **environment: str
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start(
            "scheduler", "--protocol", protocol, "--host", "127.0.0.1", "--port", "0", path=path
        )
        self.address = self._said("scheduler", "Scheduler at:").split()[-1]

    def worker(
        self, path: Path | str = ROOT, *argv: str, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a worker that finds its packages in a path; wait until it is registered."""
        name = f"worker{len(self._processes)}"
        process = self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1",
            "--protocol", self.address.partition(":")[0], *argv,
            path=path, name=name,
        )  # fmt: skip
        if wait:
            self._said(name, "Registered to:")
        return process

    def address_of(self, process: subprocess.Popen[bytes]) -> str:
        """Return a worker's address."""
        number = self._processes.index(process)
        return self._said(f"worker{number}", "Start worker at:").split()[-1]

    @property
    def addresses(self) -> list[str]:
        """The addresses of all workers that were started."""
        return [self.address_of(process) for process in self._processes[1:]]

    @property
    def logs(self) -> str:
        """What all of them have written so far."""
        return "\n".join(path.read_text() for path in self._folder.glob("*.log"))

    def end(self) -> None:
        """Kill all that is left."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(
        self, what: str, *argv: str, path: Path | str, name: str = ""
    ) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ASYNC_LOADER_")}
        environment |= {"PYTHONPATH": str(path or self._bare()), "PYTHONWARNINGS": "default"}
        with (self._folder / f"{name or what}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *argv],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=environment | self._environment,
            )
        self._processes.append(process)
        return process

    def _bare(self) -> Path:
        """Return a path with which a process has no async_loader, though it is installed."""
        bare = self._folder / "bare"
        bare.mkdir(exist_ok=True)
        (bare / "sitecustomize.py").write_text(_HIDING)
        return bare

    def _said(self, name: str, what: str) -> str:
        """Return the line in which a process says something."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for line in (self._folder / f"{name}.log").read_text().splitlines():
                if what in line:
                    return line
            time.sleep(0.02)
        raise AssertionError((self._folder / f"{name}.log").read_text())


@contextmanager
def dask_cluster(
    folder: Path, protocol: str = "tcp", *, path: Path | str = ROOT, **environment: str
) -> Iterator[DaskCluster]:
    """Yield a cluster without workers."""
    cluster = DaskCluster(folder, protocol, path=path, **environment)
    try:
        yield cluster
    finally:
        cluster.end()
