"""
Resumable batch jobs.

Database effects in the job's database are exactly-once across kill -9, connection loss and
competing workers. Effects outside it are at-least-once, with a stable key (run, partition, chunk).

A partition's chunk, from one position to the next, each line a transaction:

    claimed by a worker (owner)        ended, dead or frozen: somebody else's
    ahead: the end of the next range   read and kept before any row of it is
    under way -> rows -> apply -> the last act: cursor, counts -> COMMIT -> the next chunk
         |          |       |                                      `- no answer: looked up by its id
         |          |       `- raises: in halves until the row is alone; skipped or the run stops
         `----------`- the server's trouble: once more, within `patience`

    states.py, tables.py    where a run can be, and the tables that say where it is
    layout.py               their version, and from the one before to ours
    checks.py               what a job is held against before it begins:
      selects.py              selects that have no pages
      catalog.py              what the database says of tables
      uniqueness.py           whether a key is unique in what a select yields
      identity.py             which run is the same work
    keyset.py, plan.py      pages by key, and the ranges that a run is cut into
    rows.py, moves.py       a chunk's rows, and an apply that moves their key:
      movers.py, key_snapshot.py   what may do so unseen, and whether it did
    store.py                every statement to those tables
    prepare_policy.py, preparing.py, versions.py   slow work on rows before their transaction
    chunks.py               one chunk, one transaction; statements.py: what ends it;
      limits.py             who cancelled a statement of it
    worker.py, guard.py     who does it, and how the others know that he lives
    watchdog.py, links.py   a server that is silent, or one connection to it
    run.py, job.py          one process's part, and what users call
    dry_run.py              the same, and all of it rolled back
    targets.py              finding a job by its name
    migrations/__init__.py  what a migration asks of jobs
"""

from .control import cancel, list_runs, pause, status
from .definition import Chunk
from .dry_run import DryRun, Selection
from .job import BatchJob
from .migrations.require import require_job, require_job_async
from .migrations.state_tables import create_state_tables
from .prepare_policy import PrepareContext
from .status import JobStatus
from .throttles import (
    ActiveBackends,
    FlagFile,
    LockWaits,
    NiceRatio,
    Pace,
    ThrottleHook,
    TimeOfDay,
    Wait,
    WalRate,
)

__all__ = [
    "ActiveBackends",
    "BatchJob",
    "Chunk",
    "DryRun",
    "FlagFile",
    "JobStatus",
    "LockWaits",
    "NiceRatio",
    "Pace",
    "PrepareContext",
    "Selection",
    "ThrottleHook",
    "TimeOfDay",
    "Wait",
    "WalRate",
    "cancel",
    "create_state_tables",
    "list_runs",
    "pause",
    "require_job",
    "require_job_async",
    "status",
]
