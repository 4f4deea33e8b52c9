"""
The command in a process of its own that need not import it: two thirds of a short run's time.

A process that has imported all that `python -m async_loader` imports waits here, as a child of the
tests, for what to run: arguments, folder, environment and what is to be written to. It forks, and
the child is what a new process would be by then. How the package is found and imported is no
matter of these tests: those of signals, kills, jobs and faults start the command for real.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Forks:
    """The process that has imported the command, and what it is asked for: one run at a time."""

    def __init__(self) -> None:
        self._start()

    def run(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; raises TimeoutExpired, having killed it."""
        request = json.dumps([argv, str(cwd), dict(env)]).encode()
        asked, asking = os.pipe()
        ours, theirs = zip(os.pipe(), os.pipe(), os.pipe(), strict=True)
        socket.send_fds(self._requests, [b"run"], [asked, *theirs])
        for descriptor in (asked, *theirs):
            os.close(descriptor)
        with os.fdopen(asking, "wb") as pipe:
            pipe.write(request)
        try:
            output, errors, code = _read(ours, timeout)
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.close()
            self._start()
            raise subprocess.TimeoutExpired(list(argv), timeout) from None
        return subprocess.CompletedProcess(list(argv), int(code), output, errors)

    def close(self) -> None:
        """Let the process end."""
        self._requests.close()
        self._process.wait()

    def _start(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )


def _read(pipes: Sequence[int], timeout: float) -> list[str]:
    """Return what comes from each pipe until its end, and close it; raises TimeoutError."""
    found = {pipe: bytearray() for pipe in pipes}
    deadline = time.monotonic() + timeout
    with ExitStack() as stack, selectors.DefaultSelector() as open_ones:
        for pipe in pipes:
            stack.callback(os.close, pipe)
            open_ones.register(pipe, selectors.EVENT_READ)
        while open_ones.get_map():
            ready = open_ones.select(max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, 2**16)
                found[key.fd] += chunk
                if not chunk:
                    open_ones.unregister(key.fd)
    return [bytes(found[pipe]).decode() for pipe in pipes]


def _serve(requests: socket.socket) -> int:
    """Fork for each request; in the child, run the command and return its exit code."""
    from async_loader.__main__ import main
    from async_loader.cli import main as _command  # noqa: F401  what the command imports when it runs

    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, len(b"run"), 4)
        if not request:
            return 0
        *others, status = descriptors
        child = os.fork()
        if not child:
            os.close(status)
            _become(*others)
            return main()
        for descriptor in others:
            os.close(descriptor)
        _, how = os.waitpid(child, 0)
        with os.fdopen(status, "w") as told:
            told.write(str(os.waitstatus_to_exitcode(how)))


def _become(asked: int, output: int, errors: int) -> None:
    """Make this the process that `python -m async_loader` would be."""
    with os.fdopen(asked) as request:
        argv, cwd, env = json.load(request)
    for descriptor, standard in ((output, 1), (errors, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = argv
    sys.path[0] = cwd


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _requests:
        sys.exit(_serve(_requests))
