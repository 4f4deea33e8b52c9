"""What of jobs needs no database: keys as text, states, mistakes in a definition."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import async_loader.jobs
from async_loader.errors import ConfigurationError, DatabaseError, JobError
from async_loader.jobs import BatchJob
from async_loader.jobs.keyset import Keyset, decode, encode
from async_loader.jobs.plan import plan
from async_loader.jobs.prepare_policy import policy_of
from async_loader.jobs.preparing import Preparer
from async_loader.jobs.report import listing, progress_line, summary
from async_loader.jobs.states import ACTIVE, TRANSITIONS, check
from async_loader.jobs.status import JobStatus
from async_loader.jobs.transient import RetryBudget, is_transient
from async_loader.testing import FakeClock

PROMISE = (
    "Database effects in the job's database are exactly-once across kill -9, connection loss and "
    "competing workers. Effects outside it are at-least-once, with a stable key (run, partition, "
    "chunk)."
)


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str | None]
    code: Mapped[str] = mapped_column(unique=True)


@pytest.mark.parametrize("text", [async_loader.jobs.__doc__, BatchJob.__doc__])
def test_the_promise_is_in_the_docs_word_for_word(text: str) -> None:
    assert PROMISE in " ".join(text.split())


@pytest.mark.parametrize(
    "value",
    [
        0, -1, 2**80, "", "ä\x00\n'\"", "5", 0.1, -0.0, float("inf"), 5e-324, b"\x00\xff", b"",
    ],
)  # fmt: skip
def test_a_key_comes_back_in_value_and_type(value: Any) -> None:
    (back,) = decode(encode([value]))
    assert (type(back), back, repr(back)) == (type(value), value, repr(value))
    assert encode([back]) == encode([value])


def test_a_key_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="type list cannot be kept exactly"):
        encode([[1]])
    with pytest.raises(ConfigurationError, match="type NoneType"):
        encode([1, None])


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"select": select(Thing).order_by(Thing.id)}, "ORDER BY"),
        ({"select": select(Thing).limit(5)}, "LIMIT"),
        ({"select": select(Thing).distinct()}, "DISTINCT"),
        ({"select": select(func.count()).group_by(Thing.id)}, "GROUP BY"),
        ({"select": select(func.now())}, "needs a mapped class"),
        ({"select": select(Thing), "key": [func.lower(Thing.code)]}, r"lower\(.*\) is none"),
        ({"select": select(Thing), "key": [Thing.id.desc()]}, "or a direction"),
        ({"select": select(Thing).union(select(Thing))}, "not over a UNION"),
        ({"chunk": 0}, "1 to 10,000 rows"),
        ({"until_empty": True}, "until_empty needs a select"),
        ({"select": select(Thing).execution_options(yield_per=9)}, "option yield_per: leave"),
        ({"select": select(Thing).execution_options(stream_results=True)}, "stream_results: "),
    ],
)
def test_mistakes_show_where_they_are_made(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        BatchJob("wrong", **options)


def test_a_unique_column_is_a_key() -> None:
    assert Keyset(select(Thing), [Thing.code]).names == "code"
    assert Keyset(select(Thing)).names == "id, part"


def test_apply_is_checked() -> None:
    job = BatchJob("x")
    with pytest.raises(ConfigurationError, match="apply is `async def"):
        job.apply(lambda session: None)  # type: ignore[type-var]  # the mistake

    @job.apply
    async def once(session: AsyncSession, rows: Sequence[None]) -> None: ...

    with pytest.raises(ConfigurationError, match="has an apply already"):
        job.apply(once)


def test_states_are_reached_only_by_their_ways() -> None:
    for (before, after), why in TRANSITIONS.items():
        check(before, after)
        assert why
        assert before in ACTIVE, "what is over stays so"
    with pytest.raises(JobError, match="a run that is done cannot become running"):
        check("done", "running")


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 159, 160, 161, 5_000, 20_003])
@pytest.mark.parametrize("partitions", [1, 2, 16])
async def test_a_plan_covers_all_rows_in_ranges_of_like_size(rows: int, partitions: int) -> None:
    keys = sorted(random.Random(rows).sample(range(10 * rows + 1), rows))

    class Pages:
        """A keyset over a list: its selects are their results."""

        def last(self) -> Any:
            return [(keys[-1],)] if keys else []

        def _within(self, lower: str | None, upper: str) -> list[int]:
            low = decode(lower)[0] if lower is not None else -1
            return keys[bisect_right(keys, low) : bisect_right(keys, decode(upper)[0])]

        def every(self, n: int, times: int, lower: str | None, upper: str) -> Any:
            found = self._within(lower, upper)[: n * times]
            return [(key,) for key in found[n - 1 :: n]]

        def count(self, lower: str | None, upper: str) -> Any:
            return [(len(self._within(lower, upper)),)]

    async def read(result: Any) -> Any:
        return result

    made = await plan(read, Pages(), chunk=10, partitions=partitions)  # type: ignore[arg-type]  # a fake
    assert made.total == rows
    assert len(made.uppers) <= partitions
    if rows:
        uppers = [decode(upper)[0] for upper in made.uppers if upper is not None]
        assert uppers == sorted(set(uppers))
        assert uppers[-1] == keys[-1]
        if partitions > 1 and rows > 20:
            sizes = [sum(a < key <= b for key in keys) for a, b in pairwise([-1, *uppers])]
            assert max(sizes) <= rows * 0.7
            assert len(sizes) > 1


class StatedError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize("state", ["40001", "40P01", "57P01", "08006", "25P03", "53300"])
def test_what_passes_by_itself(state: str) -> None:
    error = DBAPIError("", {}, StatedError(state))
    assert is_transient(error)
    assert is_transient(error, applying=True)


@pytest.mark.parametrize("state", ["23505", "22001", "42P01", "57014"])
def test_what_does_not(state: str) -> None:
    assert not is_transient(DBAPIError("", {}, StatedError(state)))


def test_a_missing_file_of_the_user_is_no_missing_server() -> None:
    assert is_transient(FileNotFoundError("socket"))
    assert not is_transient(FileNotFoundError("score.txt"), applying=True)
    assert is_transient(ConnectionResetError(), applying=True)


async def test_patience_ends() -> None:
    clock = FakeClock()
    patience = RetryBudget(clock, 10.0)

    async def wait_on() -> None:
        while True:
            await clock.sleep(patience.next_pause(ConnectionResetError("reset")))

    with pytest.raises(DatabaseError, match="gave up after 1"):
        await wait_on()
    assert max(clock.slept) <= 2.0
    assert len(set(clock.slept)) > 5, "jitter"


def standing(**changes: Any) -> JobStatus:
    values: dict[str, Any] = {
        "run": 3, "job": "j", "arguments": {"a": "1"}, "state": "running", "message": None,
        "total": 1_000, "rows_read": 400, "rows_written": 400, "rows_skipped": 100, "retried": 2,
        "chunks": 5, "partitions": 4, "partitions_done": 1, "busy_seconds": 10.0, "tasks": 2,
        "throttled_seconds": 1.5, "throttled_why": "night", **changes,
    }  # fmt: skip
    return JobStatus(**values)


def test_the_pace_goes_by_busy_time_and_nothing_is_guessed() -> None:
    assert standing().rate == 100.0
    assert standing().eta_seconds == 5.0
    assert standing(total=None).eta_seconds is None
    assert standing(busy_seconds=0.0).rate is None
    assert "skipped 100" in summary(standing())
    assert "throttled 1.5 s (night)" in summary(standing())
    assert "interrupted" in summary(standing(tasks=0))
    assert listing([]) == "no job has run here\n"
    assert listing([standing()]).split() == [
        "3",
        "j",
        "(a=1)",
        "2",
        "at",
        "work",
        "500",
        "of",
        "1,000",
        "rows",
    ]


def test_when_a_run_began_and_how_long_it_took() -> None:
    began = datetime(2026, 7, 1, 22, 15, 1, tzinfo=UTC)
    assert "begun     2026-07-01 22:15:01 UTC\n" in summary(standing(started_at=began))
    times = {"started_at": began, "ended_at": began + timedelta(hours=26, seconds=3.4)}
    done = standing(state="done", **times)
    assert "begun     2026-07-01 22:15:01 UTC, over after 1 day, 2:00:03\n" in summary(done)
    lines = listing([done, standing(started_at=began)]).splitlines()
    assert lines[0].startswith("3  j (a=1)  2026-07-01 22:15:01 UTC  1 day, 2:00:03  done")
    assert lines[1].startswith("3  j (a=1)  2026-07-01 22:15:01 UTC                  2 at work")


ESCAPING = "a\x1b[31mred\nline \udcff"


def test_a_terminal_gets_nobody_s_escape_codes() -> None:
    shown = [
        summary(standing(state="failed", message=ESCAPING)),
        summary(standing(state="paused", message=ESCAPING)),
        summary(standing(state="done", message=ESCAPING)),
        summary(standing(throttled_why=ESCAPING)),
        progress_line(standing(throttled_why=ESCAPING)),
        listing([standing(job=ESCAPING)]),
        summary(standing(arguments={"a": ESCAPING})),
    ]
    for text in shown:
        assert r"a\x1b[31mred\nline \udcff" in text
        assert "".join(text.splitlines()).isprintable()


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "a\udcff", "x" * 201, "ä" * 101])
def test_a_name_is_a_line_of_which_an_index_takes_all(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^a job's name (is one line|has at most 2)"):
        BatchJob(name)


async def test_a_rate_lets_calls_in_at_even_distances_and_saves_none_up() -> None:
    clock: Any = FakeClock()
    reader: Any = SimpleNamespace(clock=clock, sleep=clock.sleep)
    unused: Any = None
    policy = policy_of(prepare_rate="10/s")
    preparer = Preparer(policy, unused, unused, reader, [], {})
    turns = []
    for _ in range(3):
        await preparer.await_turn()
        turns.append(clock.now_ns() / 1e9)
    clock.advance(5)
    for _ in range(2):
        await preparer.await_turn()
        turns.append(clock.now_ns() / 1e9)
    assert turns == pytest.approx([0, 0.1, 0.2, 5.2, 5.3])
