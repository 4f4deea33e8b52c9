"""A process that does not outlive its parent, whatever it is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """
    Have the kernel kill this process when its parent, of this id, has died: on Linux.

    It needs no interpreter for that, which code that holds its lock would not let in. The
    signal comes at the end of the parent's *thread* that started us (prctl(2)): workers are
    started by the thread of an event loop that outlives them. A parent that died before this
    was set is seen by its id, which is then another's.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
