"""
Keys by which whoever starts a job again finds the run that did the work already.

A supervisor that starts a command again cannot know whether its last run was done: the process
may have died behind its last commit. The run with the same key answers.
"""

from __future__ import annotations

from sqlalchemy.engine import RowMapping

from ..errors import ConfigurationError, JobError
from .definition import check_line
from .store import Names, Store

_LONGEST_KEY = 500


def check_key(key: str | None) -> None:
    """Raise `ConfigurationError` for what is no key."""
    if key is None:
        return
    if not key.strip():
        raise ConfigurationError("an idempotency key is one line of printable characters")
    check_line("an idempotency key", key, _LONGEST_KEY)


async def run_of_key(store: Store, names: Names) -> RowMapping | None:
    """Return the run that has this key, whatever became of it; raises `JobError` for another's."""
    key = names["idempotency_key"]
    run = None if key is None else await store.run_with_key(names)
    if run is None:
        return None
    if run["arguments"] != names["arguments"]:
        raise JobError(
            f"run {run['id']} has the idempotency key {key!r} and other arguments "
            f"({run['arguments']}): other work needs a key of its own"
        )
    if run["state"] == "cancelled":
        raise JobError(
            f"run {run['id']} with the idempotency key {key!r} was cancelled: "
            "to start anew give another key"
        )
    return run


async def adopt(store: Store, run: RowMapping, names: Names) -> None:
    """Give a run that goes on the key; raises `JobError` where it has another."""
    key = names["idempotency_key"]
    if key is None or run["idempotency_key"] == key:
        return
    if run["idempotency_key"] is not None or not await store.give_key(run["id"], key):
        raise JobError(
            f"run {run['id']} is not over and has another idempotency key "
            f"({run['idempotency_key']!r}): run the job with that key, or cancel it "
            f"(`job cancel {run['id']}`)"
        )
