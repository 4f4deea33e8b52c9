"""
What a run tells the command that started it: a message a line, as JSON.

Down goes nothing but signals, and the name of each in a line of its own: a workload may have
taken them for itself.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct, convert, to_builtins

from ..answers import Answer


class Alive(Struct, frozen=True, tag=True):
    """Its interpreter works."""


class Progress(Struct, frozen=True, tag=True):
    """Where the run is (see `under_way`), and what is known of it."""

    stage: str
    own_server: bool
    so_far: dict[str, Any] | None


class Hung(Struct, frozen=True, tag=True):
    """It ends here, by no doing of ours: why, at which line, and what is known of it."""

    why: str
    where: str | None
    stage: str
    so_far: dict[str, Any] | None


class Ended(Struct, frozen=True, tag=True):
    """All is done and said, but for the process's own end."""

    code: int = 0
    answer: Answer | None = None
    """What came of it, where the command is to report that."""


Told = Alive | Progress | Hung | Ended


def line_of(message: Told) -> bytes:
    """
    Return a message as it travels.

    Not by msgspec's own JSON: an application's words may hold what is no UTF-8.
    """
    return json.dumps(to_builtins(message)).encode() + b"\n"


def message_of(line: bytes) -> Told:
    """Return the message of a line."""
    told: Told = convert(json.loads(line), Told)
    return told
