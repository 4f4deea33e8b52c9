"""
Finding the statement that an operation executes again and again: the N+1.

Lazy loads, a query in a loop, a flush that writes row after row: each is quick by itself, and
each is a round trip. A statement counts as repeated when one operation executes its very text
`LEAST` times. Batches are not: `executemany`, the batches of `insertmanyvalues`, and the
`selectinload` of one result, which asks for 500 parents at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, Protocol

from ...failures.redaction import shortened
from ...failures.source_lines import frames_outwards, line_of, origin_of, user_line
from ...results.findings import RepeatedStatement

LEAST = 5
"""
How many executions in one operation make an N+1, unless it is said otherwise.

Below it lie the handful of look-ups that an operation makes on purpose; a page of rows with a
lazy load each is above. Sentry's detector uses the same number.
"""

_MOST_FINDINGS = 500
_OTHERS = "(other statements)"


class Site(NamedTuple):
    """Where a repeated statement comes from: the user's line, and what the ORM was doing."""

    source: str | None
    cause: str | None


class Statements(Protocol):
    """What one operation executed: how often each text, and where the repeated come from."""

    seen: dict[str, int]
    repeated: dict[str, Site]


@dataclass(slots=True)
class _Tally:
    operations: int = 0
    executions: int = 0
    most: int = 0


class RepeatTally:
    """The running count of repeated statements, in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str | None, str | None], _Tally] = {}

    def count(self, operation: str, statements: Statements) -> None:
        """Count what one operation repeated."""
        for statement, site in statements.repeated.items():
            key = (operation, shortened(statement), *site)
            if key not in self._found and len(self._found) >= _MOST_FINDINGS:
                key = (operation, _OTHERS, None, None)
            tally = self._found.setdefault(key, _Tally())
            executions = statements.seen[statement]
            tally.operations += 1
            tally.executions += executions
            tally.most = max(tally.most, executions)

    def result(self) -> tuple[RepeatedStatement, ...]:
        """Return the findings, those with most executions first."""
        found = [
            RepeatedStatement(*key, tally.operations, tally.executions, tally.most)
            for key, tally in self._found.items()
        ]
        return tuple(sorted(found, key=lambda repeat: (-repeat.executions, str(repeat.key))))


def repeat_site() -> Site | None:
    """
    Return where the statement that is being executed comes from; None if it is one of a batch.

    To be called beneath SQLAlchemy's execution. It looks at some dozen frames (microseconds),
    and so is for a statement that has been repeated, not for each.
    """
    cause = None
    lines = []
    for frame in frames_outwards():
        if _is_batch(frame):
            return None
        cause = cause or _cause(frame)
        lines.append(line_of(frame))
        if origin_of(frame.f_code.co_filename) == "own":
            break
    return Site(user_line(lines), cause)


def _is_batch(frame: FrameType) -> bool:
    """Whether a frame executes one of several batches, each of many rows."""
    match frame.f_code.co_name:
        case "_exec_insertmany_context":
            return bool(frame.f_locals["imv_batch"].current_batch_size > 1)
        case "_load_for_path" | "_load_via_parent" | "_load_via_child":
            # selectinload has a size of chunks, of all loaders.
            return hasattr(frame.f_locals.get("self"), "_chunksize")
    return False


def _cause(frame: FrameType) -> str | None:
    """Return what the ORM does in a frame, where that makes a statement that nobody wrote."""
    match frame.f_code.co_name:
        case "_emit_lazyload":
            return f"lazy load of {_property(frame)}"
        case "_load_for_state" if _property(frame) is not None:
            return f"deferred load of {_property(frame)}"
        case "_load_scalar_attributes" | "load_scalar_attributes":
            return _reload(frame)
        case "_flush" if "flush_context" in frame.f_locals:
            return "flush"
    return None


def _property(frame: FrameType) -> Any:
    """Return `Song.chords` for a frame of the loader of that attribute."""
    return getattr(frame.f_locals.get("self"), "parent_property", None)


def _reload(frame: FrameType) -> str | None:
    """Return whose attributes are read anew; a deferred column's loader does the same."""
    caller = frame.f_back
    if caller is not None and caller.f_code.co_name == "_load_for_state":
        return None
    mapper = frame.f_locals.get("mapper")
    return f"reload of expired {mapper.class_.__name__}" if mapper is not None else None
