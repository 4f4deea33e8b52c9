"""Connections that operations have taken and not given back."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from ...failures.source_lines import Place, written
from ...results.loop_profile import Leak
from ..effects.effects import is_idle
from .pools import PoolWatch


def leaks_of(pool: PoolWatch) -> tuple[Leak, ...]:
    """Return what is still out now that all operations have ended, those with most first."""
    out: Counter[tuple[str, Place | None]] = Counter()
    open_transactions: Counter[tuple[str, Place | None]] = Counter()
    for taken in pool.still_out():
        if taken.operation is None:
            continue  # the set-up's or a background task's, who may want it for longer
        key = (taken.operation, taken.place)
        out[key] += 1
        with suppress(Exception):  # one that was broken off meanwhile is in nothing
            open_transactions[key] += not is_idle(taken.connection)
    found = out + pool.collected
    return tuple(
        Leak(
            operation,
            "?" if place is None else written(place),
            count,
            collected=pool.collected[operation, place],
            in_transaction=open_transactions[operation, place],
        )
        for (operation, place), count in found.most_common()
    )
