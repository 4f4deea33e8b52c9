"""
What one operation did to its databases: what it wrote, committed, rolled back, and what failed.

Read off the dialects of all engines of the process (`watched`), whoever made them and when: two
things depend on it. An operation that committed something is never tried again, and one that
wrote and kept nothing of it has not done its work.

A commit is known by what the driver says of its transaction after a statement, not by who asked
for it: `COMMIT` in SQL, AUTOCOMMIT and a procedure end one as `Session.commit` does. What cannot
be attributed (a thread without the operation's context, a driver used directly) counts as a
commit, and never as work that was not done.
"""

from __future__ import annotations

from .behind import forget_what_is_done, left_undone
from .effects import Effects, current_effects
from .statements import sort_of
from .watching import watched

__all__ = [
    "Effects",
    "current_effects",
    "forget_what_is_done",
    "left_undone",
    "sort_of",
    "watched",
]
