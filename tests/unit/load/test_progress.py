from __future__ import annotations

import io
from dataclasses import replace

import pytest

from async_loader import Snapshot
from async_loader.load.progress import _figures, progress_view, seconds_left

SNAPSHOT = Snapshot(
    seconds=10.0,
    planned=1000,
    duration=None,
    completed=240,
    bad=10,
    rate=25.0,
    p95_ms=1.5,
    in_use=7,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("async_loader.load.progress.LINE_EVERY", 0.0)
    stream = io.StringIO()
    with progress_view(stream) as view:
        view.phase("connecting")
        view.update(SNAPSHOT)
    assert stream.getvalue().splitlines() == [
        "connecting",
        "  10.0 s  240 of 1,000  25/s  p95 1.5 ms  7 conn  10 failed  ETA 30 s",
    ]


def test_what_was_dropped_is_shown_and_is_over() -> None:
    snapshot = replace(SNAPSHOT, dropped=250)
    assert "250 dropped" in _figures(snapshot)
    assert seconds_left(snapshot) == 10.0
    assert "dropped" not in _figures(SNAPSHOT)


def test_lines_come_every_five_seconds() -> None:
    stream = io.StringIO()
    with progress_view(stream) as view:
        for _ in range(100):
            view.update(SNAPSHOT)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    stream = Terminal()
    with progress_view(stream) as view:
        view.update(SNAPSHOT)
    text = stream.getvalue()
    assert "━" in text
    assert "25/s  p95 1.5 ms  7 conn  10 failed" in text
    assert text.endswith("\x1b[2K"), "the bar is erased and the cursor back"


def test_none_is_silent() -> None:
    stream = Terminal()
    with progress_view(stream, "none") as view:
        view.phase("connecting")
        view.update(SNAPSHOT)
    assert stream.getvalue() == ""


def test_the_time_to_go() -> None:
    assert seconds_left(SNAPSHOT) == pytest.approx(30.0)
    by_time = Snapshot(10.0, None, 60.0, 5, 0, 1, 1, None)
    assert seconds_left(by_time) == 50.0
    unknown = Snapshot(0.1, 1000, None, 0, 0, 0, 0, None)
    assert seconds_left(unknown) is None
