"""What a run's process tells the service; down goes a request to stop alone."""

from __future__ import annotations

from typing import Any

from ..workers import Message


class Started(Message, frozen=True):
    """Which process it is."""

    pid: int


class Phase(Message, frozen=True):
    """What it does now, for people."""

    phase: str


class Now(Message, frozen=True, tag="snapshot"):
    """How far it is: a `Snapshot` as JSON, once a second."""

    snapshot: dict[str, Any]


class Note(Message, frozen=True):
    """What went wrong meanwhile."""

    text: str


Told = Started | Phase | Now | Note
