"""What an operation or a hook of somebody else's does, and what the command says: a table."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from .conftest import ROOT, Command

OPS = 40
ARGV = ["--workload", f"{ROOT / 'tests/acceptance/foreign.py'}:workload", "--ops", str(OPS)]
ARGV += ["--concurrency", "4", "--op-timeout", "1s", "--grace", "1s", "--out", "json=found.json"]
ARGV += ["--threshold", "errors:count<1", "--max-error-rate", "1"]

# The command always ends: op-timeout and grace and 5 s after the operation began, and what a busy
# machine takes to come so far and to report.
WITHIN = 1 + 1 + 5 + 15

PASSED, FAILED, STOPPED, UNUSABLE, LOST = 0, 99, 105, 107, 113
WORDS = {PASSED: "passed", FAILED: "failed", STOPPED: "stopped", LOST: "failed"}

# One operation of forty does this: the exit code, how many failed, and what is said of it.
OPERATIONS = [
    ("raises", FAILED, 1, ["ValueError", "wrong", "foreign.py:"]),
    ("raises_stop_iteration", FAILED, 1, ["RuntimeError"]),
    ("recurses", FAILED, 1, ["RecursionError"]),
    ("raises_cancelled", FAILED, 1, ["CancelledError", "in raises_cancelled"]),
    ("awaits_a_cancelled_task", FAILED, 1, ["CancelledError"]),
    ("cancels_itself", FAILED, 1, ["CancelledError"]),
    ("cancels_all", FAILED, None, ["CancelledError"]),
    ("has_a_thread_cancel_all", FAILED, None, ["CancelledError"]),
    ("calls_back_what_fails", FAILED, 1, ["background callback: ValueError", "late"]),
    ("exits", FAILED, 1, ["SystemExit", "in exits"]),
    ("exits_in_a_task_group", FAILED, 1, ["SystemExit"]),
    ("exits_in_a_thread", FAILED, 1, ["SystemExit"]),
    ("exits_in_a_callback", PASSED, 0, ["went on after", "SystemExit"]),
    ("exits_at_once", LOST, None, ["os._exit(0)", "in exits_at_once"]),
    ("kills_its_process", LOST, None, ["was killed by SIGKILL"]),
    ("raises_generator_exit", FAILED, 1, ["GeneratorExit"]),
    ("raises_its_own", FAILED, 1, ["Abort"]),
    ("raises_a_group", FAILED, 1, ["Abort"]),
    ("interrupts", STOPPED, 1, ["interrupted", "KeyboardInterrupt"]),
    ("stops_the_loop", FAILED, 1, ["loop.stop()", "in stops_the_loop"]),
    ("returns_a_coroutine", FAILED, 1, ["not awaited", "nothing"]),
    ("returns_a_generator", FAILED, 1, ["not awaited", "async generator"]),
    ("returns_rows_by_name", FAILED, 1, ["not awaited", "async generator"]),
    ("keeps_a_generator", FAILED, 1, ["not awaited", "rows", "foreign.py:"]),
    ("returns_coroutines", FAILED, 1, ["not awaited"]),
    ("hides_a_coroutine", FAILED, 1, ["not awaited", "nothing"]),
    ("drops_a_coroutine", FAILED, 1, ["not awaited", "nothing"]),
    ("keeps_a_coroutine", FAILED, 1, ["not awaited", "nothing", "foreign.py:"]),
    ("returns_a_map", FAILED, 1, ["not awaited", "a map", "nothing was done"]),
    ("returns_what_it_did_not_enter", FAILED, 1, ["not awaited", "nothing was done"]),
    ("returns_503", FAILED, 1, ["HTTP 503"]),
    ("returns_404", PASSED, 0, []),
    ("raises_404", FAILED, 1, ["HttpError 404", "Order is gone"]),
    ("raises_a_token", FAILED, 1, ["api_key=***"]),
    ("raises_an_escape_code", FAILED, 1, [r"\x1b[2Jred"]),
    ("raises_a_surrogate", FAILED, 1, [r"no caf\udce9"]),
    ("raises_a_huge_message", FAILED, 1, ["tokentoken"]),
    ("gathers_exceptions", FAILED, 1, ["KeyError"]),
    ("leaves_a_task_that_fails", FAILED, 1, ["background task: ValueError", "late"]),
    ("leaves_a_task_that_exits", FAILED, 1, ["background task: SystemExit"]),
    ("leaves_a_task_for_ever", FAILED, 1, ["background task cut off"]),
    ("leaves_a_task_for_a_moment", PASSED, 0, []),
    ("leaves_a_task_of_its_own_making", FAILED, 1, ["background task: ValueError", "late"]),
    ("gathers_and_does_not_wait", FAILED, 1, ["background task: ValueError", "late"]),
    ("leaves_to_a_pool_what_fails", FAILED, 1, ["background task: ValueError", "in late_in"]),
    ("leaves_to_a_pool_what_does_not_end", FAILED, 1, ["background task cut off", "left behind"]),
    ("hands_to_its_loop_what_fails", FAILED, 1, ["background task: ValueError", "late"]),
    ("leaves_a_thread_that_fails", FAILED, 1, ["background thread: ValueError", "in late_in"]),
    ("hangs", FAILED, 1, ["timeout", "in hangs"]),
    ("swallows_its_cancellation", FAILED, 1, ["abandoned", "in swallows_its_cancellation"]),
    ("blocks_the_loop", FAILED, None, ["blocked the event loop", "in blocks_the_loop", "odd"]),
    ("holds_the_interpreter", FAILED, None, ["stood still", "in holds_the_interpreter"]),
    ("hangs_in_a_thread", FAILED, 1, ["timeout", "left behind"]),
    ("sets_stdout_to_none", PASSED, 0, []),
    ("uses_up_descriptors", FAILED, None, ["Too many open files"]),
    ("replaces_its_process", LOST, None, ["exit code 0 before its end"]),
    ("forks", PASSED, 0, []),
    ("closes_the_loop", FAILED, 1, ["RuntimeError"]),
    ("starts_a_thread", PASSED, 0, ["left behind: thread"]),
]
# The same of sync operations: `--mode threads`.
IN_THREADS = [
    ("raises", FAILED, 1, ["ValueError", "wrong", "foreign.py:"]),
    ("exits", FAILED, 1, ["SystemExit", "in sync_exits"]),
    ("interrupts", STOPPED, 1, ["interrupted", "KeyboardInterrupt"]),
    ("raises_cancelled", FAILED, 1, ["CancelledError"]),
    ("returns_a_coroutine", FAILED, 1, ["not awaited", "nothing"]),
    ("drops_a_coroutine", FAILED, 1, ["not awaited", "nothing"]),
    ("keeps_a_coroutine", FAILED, 1, ["not awaited", "nothing", "foreign.py:"]),
    ("returns_a_generator", FAILED, 1, ["not awaited", "nothing was done"]),
    ("leaves_to_a_pool_what_fails", FAILED, 1, ["background task: ValueError", "in late_in"]),
    ("leaves_a_thread_that_fails", FAILED, 1, ["background thread: ValueError", "in late_in"]),
    ("hangs", FAILED, 1, ["abandoned", "in sync_hangs"]),
    ("hangs_in_a_call", FAILED, 1, ["abandoned", "in sync_hangs_in_a_call"]),
    ("holds_the_interpreter", FAILED, None, ["stood still", "in sync_holds_the_interpreter"]),
]
# What stands still as one of several runs, or in one of several processes.
OF_SEVERAL = [
    (["sweep", "--steps", "2", "--duration", "2s"], FAILED, "did not end by itself"),
    (["compare", "--modes", "chunks", "--rounds", "1"], FAILED, "in holds_the_interpreter"),
    (["--processes", "2"], LOST, "stood still"),
]
# The same on a database, where there is one payment, of number 1: how many there are then.
ON_A_DATABASE = [
    ("does_not_commit", FAILED, 1, ["not committed", "rolls_back=True"], 1),
    ("does_not_flush", FAILED, 1, ["not committed", "never flushed"], 1),
    ("never_closes_its_session", FAILED, 1, ["not committed", "never flushed"], 1),
    ("adds_to_a_session_made_before", FAILED, 1, ["not committed", "never flushed"], 1),
    ("expunges_what_it_added", FAILED, 1, ["not committed", "never flushed"], 1),
    ("resets_its_session", FAILED, 1, ["not committed", "never flushed"], 1),
    ("calls_what_writes_and_does_not_commit", FAILED, 1, ["not committed"], 1),
    ("executes_what_it_prepared", FAILED, 1, ["not committed"], 1),
    ("changes_and_does_not_flush", FAILED, 1, ["not committed", "never flushed"], 1),
    ("leaves_a_task_that_does_not_commit", FAILED, 1, ["background task: not committed"], 1),
    ("leaves_a_task_that_does_not_flush", FAILED, 1, ["task: not committed", "never flushed"], 1),
    ("leaves_a_task_that_commits", PASSED, 0, [], 2),
    ("returns_a_session_not_begun", FAILED, 1, ["not awaited", "nothing was done"], 1),
    ("rolls_back", PASSED, 0, [], 1),
    ("swallows_its_error", FAILED, 1, ["not committed", "23505 unique_violation"], 1),
    ("commits_what_is_broken", FAILED, 1, ["not committed"], 1),
    ("takes_what_is_there", PASSED, 0, [], 1),
    ("is_given_up_after_a_commit", FAILED, 1, ["40001", "1 failed after commit"], 2),
    ("is_given_up_once", PASSED, 0, [], 1),
    ("leaves_an_engine_open", PASSED, 0, [], 1),
    ("swallows_its_cancellation_in_a_session", FAILED, 1, ["abandoned", "left behind: a task"], 1),
    (
        "leaks_a_connection",
        PASSED,
        0,
        ["'odd' ended with 1 connection still out", "in leaks_a_connection"],
        1,
    ),
]
PAYS = """CREATE FUNCTION pay() RETURNS int LANGUAGE sql
AS 'INSERT INTO payment (amount) VALUES (1) RETURNING id'"""
# What goes before and after: whether there is a report, and what is said.
HOOKS = [
    ("set-up exits", UNUSABLE, False, ["the set-up", "SystemExit", "foreign.py:"]),
    ("set-up is cancelled", UNUSABLE, False, ["the set-up", "CancelledError", "foreign.py:"]),
    ("set-up exits at once", UNUSABLE, False, ["the set-up", "os._exit(0)", "foreign.py:"]),
    ("tear-down exits", UNUSABLE, True, ["the tear-down", "SystemExit", "foreign.py:"]),
    ("tear-down is cancelled", UNUSABLE, True, ["the tear-down", "CancelledError"]),
    ("tear-down exits at once", UNUSABLE, True, ["the tear-down", "os._exit(0)", "foreign.py:"]),
    ("tear-down hangs", UNUSABLE, True, ["the tear-down", "had not ended", "foreign.py:"]),
    ("tear-down blocks", UNUSABLE, True, ["the tear-down", "stood still", "foreign.py:"]),
    ("a session of the hook that exits", UNUSABLE, False, ["SystemExit", "foreign.py:"]),
    ("an import that exits", UNUSABLE, False, ["SystemExit", "foreign.py:"]),
    ("an import that exits at once", LOST, False, ["os._exit(0)", "foreign.py:"]),
    ("a second set-up", UNUSABLE, False, ["set-up already", "foreign.py:"]),
]


DOCUMENT = ROOT / "docs/reference/behaviours.md"
HEAD = """# What an operation does, and what the gate says of it

Of 40 operations one does what stands on the left, or one of the workload's hooks does; the gate
asks for no error (`--threshold 'errors:count<1' --op-timeout 1s --grace 1s`). Each line is a test
(`tests/acceptance/test_foreign_operations.py`), and this file is made of its tables; the operations
are in `tests/acceptance/foreign.py`. However it ends, what was asked for is accounted for, and it
ends within op-timeout, grace and 5 s.
"""


TAIL = """
## What cannot be seen

- Which operation has made a coroutine that is kept somewhere, as in a list of a module, and never
  awaited: they are found at the end, each fails an operation, and which is told by who names its
  function. The same of async generators of the workload's own code; one that was made and dropped
  leaves no trace, nor does a future whose exception nobody asks for.
- A callback that is to be called (`call_later`) after the last operation and all tasks have ended.
- What a task in the background returns, such as a response of 500. What it writes and does not
  commit is found, where the operation has ended well before.
- What an operation changes of objects in a session that was made before it, by the set-up say, and
  that nobody closes: whether anything is still to be flushed is looked at in the sessions that the
  operation made or gave an object to (`add`, `delete`, `merge`), and where any session is closed,
  reset or emptied by `expunge_all`.
- Whether a function that was called in SQL, or what was prepared there, has written something:
  PostgreSQL (13 and later) is asked where its transaction is rolled back and nothing else has told.
  It is not asked where the transaction has locked rows or made a temporary table, nor about a
  statement that was found to write nothing twenty times. A transaction that was committed counts
  as work that was done. So does whatever is done with a driver beside its engine (asyncpg's own
  connection, say), rolled back or not.
- In whose name a thread works that was started by another thread or by a library, or a process:
  what fails there is nobody's. A thread that lives on is named and no failure; what was given to
  a pool (`run_in_executor`, `submit`) is awaited for the grace, as tasks are.
- What a workload's own handler of a signal does with it. The command tells its run of a stop
  besides, so that nothing depends on that; `os._exit` there ends it at once.
- Why a report could not be written where a workload has limited the size of files
  (`RLIMIT_FSIZE`) and stderr is a file as well: the exit code is 1, and nothing can be said there.
- In the modes `sync` and `threads`, where an operation is after it was abandoned: a thread cannot
  be cancelled. It has lost its connections by then, and goes on without them until the process
  ends.
"""


def told(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def row_of(row: tuple[str, int, int | None, list[str]]) -> str:
    kind, code, failed, words = row
    count = "some" if failed is None else failed
    return f"| {kind.replace('_', ' ')} | {code} | {WORDS[code]} | {count} | {told(words)} |"


def the_document() -> str:
    """Return what that document is to be; run as a module, this file writes it."""
    lines = [
        HEAD,
        "| an operation that | exit code | verdict | failed | and says |",
        "|" + "---|" * 5,
    ]
    both = [*OPERATIONS, *((*row[:4],) for row in ON_A_DATABASE)]
    lines += map(row_of, both)
    lines += [
        "",
        "| with `--mode threads`, an operation that | exit code | verdict | failed | and says |",
    ]
    lines += ["|" + "---|" * 5, *map(row_of, IN_THREADS)]
    lines += ["", "| a workload of which | exit code | report | and says |", "|" + "---|" * 4]
    for kind, code, reported, words in HOOKS:
        lines.append(f"| {kind} | {code} | {'yes' if reported else 'none'} | {told(words)} |")
    lines += ["", "| an operation that holds the interpreter, in | exit code | and says |"]
    lines += ["|" + "---|" * 3]
    for argv, code, said in OF_SEVERAL:
        lines.append(f"| `{' '.join(argv)}` | {code} | {told([said])} |")
    return "\n".join([*lines, TAIL])


def test_the_document_says_what_is_tested() -> None:
    assert DOCUMENT.read_text() == the_document()
    assert len(OPERATIONS) + len(ON_A_DATABASE) + len(HOOKS) >= 40


def found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "found.json").read_text())  # type: ignore[no-any-return]


def check(
    done: subprocess.CompletedProcess[str], folder: Path, code: int, failed: int | None
) -> None:
    """Hold the counts against each other: nothing that was asked for is lost between them."""
    assert done.returncode == code, done.stderr
    assert found(folder)["verdict"]["word"] == WORDS[code]
    counted = found(folder)["operations"]
    parts = ("completed", "failed", "indeterminate", "dropped", "not_started")
    assert sum(counted[part] for part in parts) == counted["planned"] == OPS
    if failed is not None:
        assert counted["failed"] == failed
    assert "operations in" in done.stdout, "the report"


def check_words(done: subprocess.CompletedProcess[str], words: list[str]) -> None:
    said = " ".join((done.stdout + done.stderr).split())
    missing = [word for word in words if word not in said]
    assert not missing, said
    assert "unexpected" not in said
    assert "AsyncSession.close' was never awaited" not in said
    assert "Exception ignored" not in said
    assert "\x1b" not in said
    assert "c2ln" not in said, "a token's"


@pytest.mark.parametrize(
    ("kind", "code", "failed", "words"), OPERATIONS, ids=[row[0] for row in OPERATIONS]
)
def test_an_operation_that(
    *, command: Command, tmp_path: Path, kind: str, code: int, failed: int | None, words: list[str]
) -> None:
    done = command(*ARGV, within=WITHIN, KIND=kind, PYTHONWARNINGS="ignore")
    check(done, tmp_path, code, failed)
    check_words(done, words)


@pytest.mark.parametrize(
    ("kind", "code", "failed", "words"), IN_THREADS, ids=[row[0] for row in IN_THREADS]
)
def test_in_a_thread_an_operation_that(
    *, command: Command, tmp_path: Path, kind: str, code: int, failed: int | None, words: list[str]
) -> None:
    done = command(*ARGV, "--mode", "threads", within=WITHIN, KIND=kind, PYTHONWARNINGS="ignore")
    check(done, tmp_path, code, failed)
    check_words(done, words)


@pytest.mark.parametrize(("words", "code", "said"), OF_SEVERAL, ids=["sweep", "compare", "split"])
def test_one_of_several_that_holds_the_interpreter(
    command: Command, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    given = ["--ops", str(OPS)] if "--duration" not in words else []
    options = [*given, *ARGV[ARGV.index("--concurrency") :]]
    if words[0] == "sweep":
        options = options[options.index("--op-timeout") : options.index("--threshold")]
    done = command(*words, *ARGV[:2], *options, KIND="holds_the_interpreter")
    assert done.returncode == code, done.stderr
    check_words(done, [said])
    assert (tmp_path / "found.json").exists()
    assert "the knee" not in done.stdout


@pytest.mark.parametrize(
    ("kind", "code", "failed", "words", "payments"),
    ON_A_DATABASE,
    ids=[row[0] for row in ON_A_DATABASE],
)
async def test_on_a_database_an_operation_that(
    *,
    command: Command,
    database_url: str,
    engine: AsyncEngine,
    tmp_path: Path,
    kind: str,
    code: int,
    failed: int,
    words: list[str],
    payments: int,
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE payment (id serial PRIMARY KEY, amount int)"))
        await connection.execute(text("INSERT INTO payment (amount) VALUES (1)"))
        await connection.execute(text(PAYS))
    warnings = "error" if kind == "leaves_an_engine_open" else "ignore"
    options = {"KIND": kind, "SHOP_URL": database_url, "PYTHONWARNINGS": warnings}
    done = command(*ARGV, "--max-tries", "3", within=WITHIN, **options)
    check(done, tmp_path, code, failed)
    check_words(done, words)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM payment")) == payments


@pytest.mark.parametrize(
    ("kind", "code", "reported", "words"), HOOKS, ids=[row[0] for row in HOOKS]
)
def test_a_workload_of_which(
    *, command: Command, tmp_path: Path, kind: str, code: int, reported: bool, words: list[str]
) -> None:
    done = command(*ARGV, within=WITHIN, KIND=kind, PYTHONWARNINGS="ignore")
    assert done.returncode == code, done.stderr
    check_words(done, words)
    assert ("operations in" in done.stdout) == reported
    if reported:
        assert found(tmp_path)["operations"]["completed"] == OPS


if __name__ == "__main__":
    DOCUMENT.write_text(the_document())
