"""
Objects that refer to others of their own table: all in one statement.

SQLAlchemy inserts a tree level by level, because the children need their parents' keys. With the
keys asked for beforehand that need is gone, and PostgreSQL checks foreign keys at the end of the
statement. Rows go in SQLAlchemy's order, level by level, so that keys come out the same. Where
the statement is refused, they go level by level after all: an error tells how far that came.

A level is a round of SQLAlchemy's sort: an object comes two rounds after its parent, for the key
is carried in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, is_
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper

from ._sqlalchemy import ManyToOne, finalize_insert_update
from .flush_order import Carried, Edge, KeyPropagation, Link, carry_keys
from .insert import Insert
from .keys import Wanted
from .places import NotSimpleError, Place
from .plans import ColumnPlan, FastPathUnsupportedError
from .refusals import refuse_given, refuse_later, refuse_table
from .resending import Resending
from .rows import RowBatch
from .save import Save

State = Any
_MISSING: Any = object()


@dataclass(slots=True, eq=False)
class Tree:
    """The new objects of one hierarchy, parents first, and who still lacks a key."""

    base: Mapper[Any]
    levels: dict[int, list[State]]  # by round, in order
    rounds: dict[State, int]
    edges: list[Edge]  # their own relationships to parents, or to children among them
    links: list[Link]  # of these
    below: list[Link]  # from the objects to those of other tables
    place: Place
    insert: Insert | None = None
    lacking: Sequence[int] = ()
    brings_values: bool = False
    states: list[State] = field(default_factory=list)
    _undo: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)
    _given: list[Any] = field(default_factory=list)  # keys, to those who lack one

    def __post_init__(self) -> None:
        self.states = [state for level in self.levels.values() for state in level]

    @property
    def is_cut(self) -> bool:
        """Tell whether SQLAlchemy would look at results in between."""
        return len(self.levels) > 1

    def prepare(self, save: Save) -> Wanted | None:
        """Check everything beforehand; return the keys to ask for."""
        try:
            save.connection_of(self.base)
        except SQLAlchemyError as error:
            # SQLAlchemy carries keys of parents that are there before it wants a connection.
            raise FastPathUnsupportedError("there is no connection") from error
        connection, parts = save.understood(self.base, self.states)
        inserts = save.inserts(connection, self.base, parts, self.states)
        if len(inserts) != 1:
            raise FastPathUnsupportedError("a tree of several kinds of rows")
        self.insert = inserts[0]
        facts = refuse_table(self.insert)
        self.lacking = self.insert.lacking()
        self._refuse_later_keys()
        self._refuse_listeners()
        refuse_given(inserts, connection.dialect, in_turns=self.is_cut)
        refuse_later(self.insert, facts)
        if self.is_cut:
            self.brings_values = self.insert.may_be_refused() or self.insert.gives(_refers_to_own)
        if not self.lacking:
            return None
        return Wanted(self.insert.plan, len(self.lacking), connection, self.insert.names)

    def _refuse_later_keys(self) -> None:
        """Refuse links to what a parent does not have yet, such as a Python default's value."""
        lacking = set(self.lacking)
        drawn = {self.states[row] for row in lacking}
        name = self.insert.generated_key if self.insert is not None and drawn else None
        for parent, _, edge in self.links:
            for left, _ in edge.pairs:
                if parent.dict.get(left) is None and not (left == name and parent in drawn):
                    raise FastPathUnsupportedError(f"{left} is made by the insert")

    def _refuse_listeners(self) -> None:
        """Refuse to carry keys twice, should the statement fail, where somebody hears of it."""
        for edge in self.edges:
            for mapper in edge.children.self_and_descendants:
                if any(mapper.class_manager[right].impl.dispatch.set for _, right in edge.pairs):
                    raise FastPathUnsupportedError(
                        "somebody listens to what refers to its own table"
                    )

    def run(self, save: Save, keys: Sequence[Any]) -> None:
        """Give keys to all objects, carry them to the children, and insert."""
        try:
            self._give_keys(keys)
            self._remember_links()
            carried: Carried = {}
            if carry_keys(save.uow, self.links, carried) > len(carried):
                # Of several parents the last counts, as SQLAlchemy comes to them.
                carry_keys(save.uow, sorted(self.links, key=self._carried_in), {})
            save.insert(self.base, self.states, self)
        except BaseException:
            if self._undo:  # else it was sent again as SQLAlchemy does, and left alike
                self._take_back()
                carry_keys(save.uow, next(self._turns())[0], {})
            raise

    def hand_on(self, batch: RowBatch) -> None:
        """Give a batch what was bound beforehand; references have been carried since."""
        if self.insert is None:
            return
        before = {one: values for one, values, _ in self.insert.batch.value_columns()}
        for one, values, _ in batch.value_columns():
            bound = self.insert.batch.bound.get(one)
            if one.codec.bind and bound is not None and all(map(is_, before[one], values)):
                batch.bound[one] = bound

    def resend(self, resending: Resending, inserts: Sequence[Insert]) -> None:
        """Insert round by round, as SQLAlchemy does; what it leaves after an error stays."""
        made = resending.made(inserts)
        for row, value in zip(self.lacking, self._given, strict=True):
            state = self.states[row]
            made[state] = [(inserts[0].generated, value), *made[state]]
        self._take_back()
        carried: Carried = {}
        for links, states in self._turns():
            carry_keys(resending.uow, links, carried)
            resending.send(states, made)
            rows = (
                (state, state.dict, state.manager.mapper, resending.connection, False)
                for state in states
            )
            finalize_insert_update(self.base, resending.uow, rows)

    def _turns(self) -> Iterator[tuple[list[Link], list[State]]]:
        """Yield, level by level, the keys that are carried before it, and its objects."""
        waiting = [(self._carried_in(link), link) for link in self.links + self.below]
        for level, states in self.levels.items():
            yield [link for turn, link in waiting if turn <= level], states
            waiting = [(turn, link) for turn, link in waiting if turn > level]
        yield [link for _, link in waiting], []

    def _carried_in(self, link: Link) -> int:
        parent, _, edge = link
        if parent in self.rounds:
            return self.rounds[parent] + 1
        return 0 if edge.refers_to_itself else self.place.rounds[edge.target.base_mapper] + 1

    def _give_keys(self, raw: Sequence[Any]) -> None:
        insert = self.insert
        if insert is None or not self.lacking:
            return
        name = insert.generated_key
        self._given = insert.processed(raw)
        for row, value in zip(self.lacking, self._given, strict=True):
            attributes = self.states[row].dict
            self._undo.append((attributes, name, attributes.get(name, _MISSING)))
            attributes[name] = value

    def _remember_links(self) -> None:
        for _, child, edge in self.links:
            for _, right in edge.pairs:
                self._undo += [
                    (attributes, right, attributes.get(right, _MISSING))
                    for attributes in (child.dict, child.committed_state)
                ]

    def _take_back(self) -> None:
        """Take back the keys that objects were given and that were carried."""
        for attributes, key, before in reversed(self._undo):
            if before is _MISSING:
                attributes.pop(key, None)
            else:
                attributes[key] = before
        self._undo.clear()


def tree(place: Place, states: Sequence[State], carry: KeyPropagation) -> Tree:
    """Order the objects by round and, within one, as they were added (Kahn's algorithm).

    Raises NotSimpleError for a circle, which SQLAlchemy reports in its own words, and where it
    would insert objects of another table between these.
    """
    edges = [edge for edge in carry.used if edge.processor.parent.base_mapper is place.base]
    above = [edge for edge in edges if edge.refers_to_itself or edge.kind is ManyToOne]
    links = carry.of(above)
    below = carry.of([edge for edge in edges if edge not in above])
    rounds = _rounds(place, states, links)
    levels: dict[int, list[State]] = {number: [] for number in sorted(set(rounds.values()))}
    for state in sorted(states, key=attrgetter("insert_order")):
        levels[rounds[state]].append(state)
    is_hidden = place.base in carry.settled or any(
        processor.parent.base_mapper is place.base for processor in carry.later
    )
    if is_hidden or place.others >= next(iter(levels)):
        raise NotSimpleError
    return Tree(place.base, levels, rounds, above, links, below, place)


def _refers_to_own(column: ColumnPlan) -> bool:
    table = column.column.table
    return any(key.column.table is table for key in column.column.foreign_keys)


def _rounds(place: Place, states: Sequence[State], links: list[Link]) -> dict[State, int]:
    """Return the round of each object: two after its parents', for keys are carried between."""
    rounds = dict.fromkeys(states, place.first)
    children: dict[State, list[State]] = {}
    waiting: dict[State, int] = {}
    for parent, child, edge in links:
        if parent in rounds:
            children.setdefault(parent, []).append(child)
            waiting[child] = waiting.get(child, 0) + 1
        else:
            held_back = 1 if edge.refers_to_itself else place.rounds[edge.target.base_mapper] + 2
            rounds[child] = max(rounds[child], held_back)
    ready = [state for state in states if state not in waiting]
    for state in ready:  # which grows meanwhile
        following = rounds[state] + 2
        for child in children.get(state, ()):
            rounds[child] = max(rounds[child], following)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    if len(ready) != len(rounds):
        raise NotSimpleError
    return rounds
