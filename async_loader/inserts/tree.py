"""
Objects that refer to others of their own table: all in one statement.

SQLAlchemy inserts a tree level by level, because the children need their parents' keys. With the
keys asked for beforehand that need is gone, and PostgreSQL checks foreign keys at the end of the
statement. Rows go in SQLAlchemy's order, level by level, so that keys come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Mapper

from async_loader.inserts.insert import Insert
from async_loader.inserts.keys import Wanted
from async_loader.inserts.lane import Link, NotSimpleError, carry_keys
from async_loader.inserts.plans import NotUnderstoodError
from async_loader.inserts.save import Save, refuse_table

State = Any
_MISSING: Any = object()


@dataclass(slots=True, eq=False)
class Tree:
    """The new objects of one hierarchy, parents first, and who still lacks a key."""

    base: Mapper[Any]
    states: list[State]
    links: list[Link]
    insert: Insert | None = None
    lacking: Sequence[int] = ()

    def prepare(self, save: Save) -> Wanted | None:
        """Check everything beforehand; return the keys to ask for."""
        connection, parts = save.understood(self.base, self.states)
        inserts = save.inserts(connection, self.base, parts)
        if len(inserts) != 1:
            raise NotUnderstoodError("a tree of several kinds of rows")
        self.insert = inserts[0]
        refuse_table(self.insert)
        self.lacking = self.insert.lacking()
        self._refuse_later_keys()
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
                    raise NotUnderstoodError(f"{left} is made by the insert")

    def run(self, save: Save, keys: Sequence[Any]) -> None:
        """Give keys to all objects, carry them to the children, and insert."""
        undo: list[tuple[dict[str, Any], str, Any]] = []
        try:
            self._give_keys(keys, undo)
            self._remember_links(undo)
            carry_keys(save.uow, self.links, set())
            try:
                save.insert(self.base, self.states)
            except NotUnderstoodError as error:
                raise AssertionError(f"{self.base} was understood before: {error}") from error
        except BaseException:
            for attributes, key, before in reversed(undo):
                if before is _MISSING:
                    attributes.pop(key, None)
                else:
                    attributes[key] = before
            raise

    def _give_keys(self, raw: Sequence[Any], undo: list[tuple[dict[str, Any], str, Any]]) -> None:
        insert = self.insert
        if insert is None or not self.lacking:
            return
        name = insert.generated_key
        for row, value in zip(self.lacking, insert.processed(raw), strict=True):
            attributes = self.states[row].dict
            undo.append((attributes, name, attributes.get(name, _MISSING)))
            attributes[name] = value

    def _remember_links(self, undo: list[tuple[dict[str, Any], str, Any]]) -> None:
        for _, child, edge in self.links:
            for _, right in edge.pairs:
                undo += [
                    (attributes, right, attributes.get(right, _MISSING))
                    for attributes in (child.dict, child.committed_state)
                ]


def tree(base: Mapper[Any], states: Sequence[State], links: list[Link]) -> Tree:
    """Order the objects by level and, within one, as they were added (Kahn's algorithm).

    Raises NotSimpleError for a circle, which SQLAlchemy reports in its own words.
    """
    children: dict[State, list[State]] = {}
    waiting: dict[State, int] = {}
    for parent, child, _ in links:
        if parent.key is None and parent.manager.mapper.base_mapper is base:
            children.setdefault(parent, []).append(child)
            waiting[child] = waiting.get(child, 0) + 1
    level = [state for state in states if state not in waiting]
    ordered: list[State] = []
    while level:
        level.sort(key=_added)
        ordered += level
        following: list[State] = []
        for state in level:
            for child in children.get(state, ()):
                waiting[child] -= 1
                if not waiting[child]:
                    following.append(child)
        level = following
    if len(ordered) != len(states):
        raise NotSimpleError
    return Tree(base, ordered, links)


def _added(state: State) -> int:
    order: int = state.insert_order
    return order
