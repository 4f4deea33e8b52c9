from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.text import Text

from async_loader import OperationResult
from async_loader.reports.console import milliseconds, render
from async_loader.results.errors import ErrorResult
from async_loader.results.parts import ProcessResult
from async_loader.results.time_split import TimeSplit
from tests.unit.results.test_results import histogram_of, result_of

BUSY = ProcessResult(9.0, 2**27, 0.97, histogram_of(3_000_000))


def test_it_fits_80_columns() -> None:
    result = replace(
        result_of(*range(10**6, 10**9, 10**6)),
        by_operation={
            "a_name_longer_than_most_names_of_operations": OperationResult(
                "write", 12_345_678, 4_567, 89, histogram_of(3_599_000_000_000)
            )
        },
        errors={
            "40001 serialization_failure": ErrorResult(
                4_567, {"a_name_longer_than_most_names_of_operations": 4_567}, "could not " * 20
            )
        },
        process=BUSY,
    )
    text = render(result)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r" 3599s$", text, re.MULTILINE)
    assert " 12,345,678 " in text
    assert "…" not in text


def test_where_time_goes_is_a_table_on_80_columns_whatever_is_small() -> None:
    def taking(application: int) -> OperationResult:
        split = TimeSplit(
            histogram_of(0), histogram_of(13_100_000), histogram_of(730_000), 2, 4,
            application=histogram_of(application), elsewhere=histogram_of(5_360_000),
            loop_queue=histogram_of(35_400_000),
        )  # fmt: skip
        return replace(OperationResult("write", 1, 0, 0, histogram_of(54_700_000)), split=split)

    operations = {"create": taking(1_530_000), "read": taking(98_600)}
    text = render(replace(result_of(54_700_000), by_operation=operations))
    (row,) = [line for line in text.splitlines() if line.startswith(" read ") and "13.1" in line]
    assert " 0.10  0% " in row


@pytest.mark.parametrize("width", [30, 40, 60, 79])
def test_nothing_is_left_out_on_a_narrow_terminal(width: int) -> None:
    times = [histogram_of(n * 10**8) for n in (1, 2, 3, 10)]
    split = TimeSplit(times[0], times[1], times[2], 2, 2, connect=times[3])
    name = "a_name_longer_than_most_names_of_operations"
    operation = OperationResult("write", 12_345_678, 4_567, 89, histogram_of(3_599_000_000_000))
    result = replace(
        result_of(*range(10**6, 10**9, 10**6)),
        by_operation={name: replace(operation, split=split), "read": operation},
    )
    text = render(result, width=width)
    assert max(map(len, text.splitlines())) <= width
    together = re.sub(r"\s+", "", text)
    for found in (name, "12,345,678", "p50", "p90", "p95", "p99", "p99.9", "max", "3599s"):
        assert found in together
    assert "SQL(most)" in together
    assert "…" not in text


def test_plain_is_plain_and_colour_only_adds_codes() -> None:
    result = result_of(5_000_000, failed=1)
    plain = render(result)
    assert "\x1b" not in plain
    coloured = render(result, color=True)
    assert "\x1b[" in coloured
    assert "\n".join(line.rstrip() for line in Text.from_ansi(coloured).plain.splitlines()) == (
        plain.rstrip("\n")
    )


def test_names_are_text_and_not_markup() -> None:
    result = result_of(1)
    operation = result.by_operation["create"]
    text = render(replace(result, by_operation={"[red]x[/]": operation}))
    assert "[red]x[/]" in text


def test_a_busy_loop_is_named_as_the_bottleneck() -> None:
    assert "bottleneck" not in render(result_of(1))
    assert "event loop was the bottleneck (97% busy)" in render(replace(result_of(1), process=BUSY))


def test_failures_are_shown_by_name_operation_and_sample() -> None:
    text = render(result_of(1, 2, 3, failed=1))
    assert "25.00% of the operations" in text
    assert "1 40001 (create 1)" in text
    assert "sorry" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0002, "0.0002"), (0.5, "0.50"), (12.34, "12.3"), (123.4, "123"), (1234567, "1235s")],
)
def test_milliseconds_have_the_digits_that_matter(value: float, shown: str) -> None:
    assert milliseconds(value) == shown
