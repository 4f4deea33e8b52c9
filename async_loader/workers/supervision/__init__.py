"""
A run of somebody's workload in a process of its own, so that it always ends, with its report.

    command (`supervise`)                        the run, forked from it (`Line`, `Watchdog`)
      passes signals on, waits        <-------   alive, 4 times a second: from a thread
      keeps the last figures          <-------   the figures so far, each second and stage
      reports where the run cannot    <-------   hung: the loop stands still, and at which line
      ends it where nothing comes     <-------   ended, with this exit code

An operation that blocks its event loop is found by the thread, which knows no event loop. Where
the interpreter's lock is held no thread runs either, and where the process is gone (`os._exit`, a
crash) nothing does: then it is the command that sees it. `messages.py` has what is told.
"""

from .command import Lost, supervise
from .inside import Line, ended, watched_by
from .messages import Ended

__all__ = ["Ended", "Line", "Lost", "ended", "supervise", "watched_by"]
