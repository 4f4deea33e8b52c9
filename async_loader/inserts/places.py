"""
Which tables come before which: what relationships that nobody uses say of it, and where objects
that refer to others of their own table come in a flush.

The tables of these make a cycle, so SQLAlchemy sorts objects and no longer tables: round by round
it inserts what nothing holds back any more. Batched, all objects of a tree go at once, which is
the same only if no other table would have come between two of its levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy.orm import Mapper

from ._sqlalchemy import presort_order, topological

Pairs = set[tuple[Any, Any]]  # what comes before what


class NotSimpleError(Exception):
    """The flush has to go the long way."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The place of one tree."""

    base: Mapper[Any]
    rounds: dict[Any, int]  # of what does not wait for the tree, by base mapper
    others: int  # the last round in which another table comes before the tree, or -1

    @property
    def first(self) -> int:
        """The first round that objects of the tree may be in."""
        return self.rounds[self.base]


def place(
    base: Any, bases: set[Any], relationships: Iterable[tuple[bool, Pairs]], nodes: Sequence[Any]
) -> Place:
    """Return the place of a tree among other tables.

    Relationships are told with whether they are the tree's own: of these, only the objects that
    use one wait for it. Of one round SQLAlchemy takes the tables from a set, in any order.
    """
    every: Pairs = set()
    of_others: Pairs = set()
    for is_own, pairs in relationships:
        every |= pairs
        if not is_own:
            of_others |= pairs
    follows = {node: _following(node, every) for node in bases}
    after = _following(base, of_others)
    others = bases - {base}
    if any(other not in after and base not in follows[other] for other in others):
        raise NotSimpleError
    for one, other in combinations(others, 2):
        if one not in follows[other] and other not in follows[one]:
            raise NotSimpleError
    rounds = {
        node: number
        for number, subset in enumerate(topological.sort_as_subsets(of_others, nodes))
        for node in subset
    }
    return Place(base, rounds, max((rounds[one] for one in others - after), default=-1))


def _following(start: Any, before: Pairs) -> set[Any]:
    """Return all that comes after something."""
    found: set[Any] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        following = {later for earlier, later in before if earlier == node}
        waiting += following - found
        found |= following
    return found


def reached_in(in_turn: Sequence[Mapper[Any]]) -> tuple[frozenset[Any], bool]:
    """Return the relationships whose target the flush knows when it comes to them.

    It knows the mappers of its objects, and whatever mapper it has looked for objects of before.
    The other result tells whether another turn might have known more, or less.
    """
    known = set(in_turn)
    reached: set[Any] = set()
    unknown: set[Any] = set()
    looked_at: set[Any] = set()
    for processor, mappers in presort_order(in_turn):
        looked_at.update(mappers)
        if processor is not None:
            found = processor.mapper in known or processor.mapper in looked_at
            (reached if found else unknown).add(processor)
    later = {one for one in reached | unknown if one.mapper not in known}
    return frozenset(reached), any(one.mapper in looked_at for one in later)
