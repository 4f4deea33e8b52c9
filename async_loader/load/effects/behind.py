"""What tasks and threads of an operation do to its databases when it has ended already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...concurrency.tasks import holder
from .effects import Effects, current_effects


class _Late(NamedTuple):
    holder: object  # the operation, as `concurrency.tasks.holder` has it
    effects: Effects


_late: list[_Late] = []


def behind_its_end(*, begin: bool) -> Effects | None:
    """Return what the operation does behind its end so far, if anything; `begin` it now."""
    ended = current_effects.get()
    if ended is None or not ended.over or ended.rolls_back:
        return None
    if ended.later is None or ended.later.over:
        if not begin:
            return None
        ended.later = Effects()
        _late.append(_Late(holder.get(), ended.later))
    return ended.later


def forget_what_is_done() -> None:
    """Forget those that have kept what they wrote: a run may have millions of them."""
    for late in tuple(_late):
        if not late.effects.pending and late.effects.not_done is None:
            late.effects.over = True
            _late.remove(late)


def left_undone() -> Iterator[tuple[object, str]]:
    """Yield the operations of which something written behind their ends was not committed, why."""
    while _late:
        late = _late.pop()
        late.effects.over = True
        if (why := late.effects.not_done) is not None:
            yield late.holder, why
