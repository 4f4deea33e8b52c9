"""
Whether a key is unique in what a select yields, joins and all.

By functional dependencies: from the key's columns, over equalities of conditions and the unique
keys of tables, to the rows of all tables that are selected from. A table that is not reached
can multiply the rows of the others. Armstrong's axioms, see any book on database theory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Alias, Column, Join, Select, Subquery, Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, Grouping
from sqlalchemy.sql.selectable import CTE, FromGrouping

from ..database.sqlalchemy_private import annotations_of, groups_of, is_distinct
from ..errors import ConfigurationError
from .catalog import ColumnFacts, TableFacts

Facts = Mapping[Table, TableFacts]
Place = tuple[int, str]  # a leaf's number and a column's name


@dataclass
class Leaf:
    """Something that is selected from, and what is unique in it; `optional`: may be all null."""

    from_: Any
    name: str
    columns: Mapping[str, ColumnFacts]
    unique: Sequence[frozenset[str]]
    short: Sequence[str] = ()
    optional: bool = False
    is_table: bool = False
    fullname: str = ""  # as the database resolves it

    @property
    def title(self) -> str:
        """What its users call it: the mapped class, or the table."""
        entity = annotations_of(self.from_).get("parententity")
        named = str(entity.class_.__name__) if entity is not None else f"{self.name}.c"
        return f"aliased({named})" if isinstance(self.from_, Alias) else named


@dataclass
class Graph:
    """What a select reads, and which column determines which other."""

    facts: Facts
    leaves: list[Leaf] = field(default_factory=list)
    edges: list[tuple[Place, Place]] = field(default_factory=list)
    constants: set[Place] = field(default_factory=set)

    @classmethod
    def of(cls, select: Select[Any], facts: Facts) -> Graph:
        """Return the graph of a select of a key's columns, which loads nothing eagerly."""
        graph = cls(facts)
        for from_ in select.get_final_froms():
            graph.add(from_)
        graph.require(select.whereclause)
        return graph

    def add(self, from_: Any, *, optional: bool = False) -> None:
        """Add what is selected from, with the conditions of its joins."""
        if isinstance(from_, FromGrouping):
            from_ = from_.element
        if not isinstance(from_, Join):
            self.leaves.append(self._leaf(from_, optional))
            return
        self.add(from_.left, optional=optional or from_.full)
        middle = len(self.leaves)
        self.add(from_.right, optional=optional or from_.full or from_.isouter)
        if not from_.full:
            outer = range(middle, len(self.leaves)) if from_.isouter else None
            self.require(from_.onclause, outer)

    def require(self, condition: Any, outer: range | None = None) -> None:
        """Add a condition that rows meet; `outer`: the leaves that are null where they do not."""
        for one in _conjuncts(condition):
            if isinstance(one, BinaryExpression) and one.operator is operators.eq:
                self._equate(one.left, one.right, outer)
                self._equate(one.right, one.left, outer)

    def _equate(self, known: Any, column: Any, outer: range | None) -> None:
        there = self.place(column)
        if there is None or (outer is not None and there[0] not in outer):
            return
        if isinstance(known, BindParameter):
            self.constants.add(there)
            return
        here = self.place(known)
        if here is not None and self.column(here).equals_like(self.column(there)):
            self.edges.append((here, there))

    def column(self, place: Place) -> ColumnFacts:
        """Return the facts of the column at a place."""
        return self.leaves[place[0]].columns[place[1]]

    def place(self, column: Any) -> Place | None:
        """Return where a column is, if it is one of what is selected from."""
        table = getattr(column, "table", None)
        for number, leaf in enumerate(self.leaves):
            if table is not None and (leaf.from_ is table or hash(leaf.from_) == hash(table)):
                name = _name_in(leaf, column)
                return None if name is None else (number, name)
        return None

    def leaf_of(self, column: Any) -> Leaf:
        """Return what a column is selected from, which must be here."""
        place = self.place(column)
        assert place is not None
        return self.leaves[place[0]]

    def missing(self, key: Sequence[Place]) -> list[Leaf]:
        """Return the leaves whose row the key does not determine."""
        known, found = {*key, *self.constants}, set[int]()
        while True:
            before = (len(known), len(found))
            known |= {there for here, there in self.edges if here in known or here[0] in found}
            for number, leaf in enumerate(self.leaves):
                names = {name for where, name in known if where == number}
                if any(unique <= names for unique in leaf.unique):
                    found.add(number)
            if (len(known), len(found)) == before:
                return [leaf for number, leaf in enumerate(self.leaves) if number not in found]

    def _leaf(self, from_: Any, optional: bool) -> Leaf:
        inner = from_.element if isinstance(from_, Alias) else from_
        if isinstance(inner, Table):
            facts = self.facts[inner]
            return Leaf(from_, inner.name, facts.columns, facts.unique, facts.short, optional,
                        is_table=True, fullname=facts.name)  # fmt: skip
        given = str(getattr(from_, "name", None) or "%")
        name = "a subquery" if "%" in given else given  # SQLAlchemy names it later
        if isinstance(inner, Subquery | CTE) and isinstance(inner.element, Select):
            return Leaf(from_, name, *self._of_subquery(from_, inner.element), optional=optional)
        return Leaf(from_, name, {}, (), [f"nothing is known to be unique in {name}"], optional)

    def _of_subquery(
        self, from_: Any, select: Select[Any]
    ) -> tuple[Mapping[str, ColumnFacts], Sequence[frozenset[str]]]:
        """Return the columns of a subquery that are a table's, and what it groups by."""
        inner = Graph.of(select, self.facts)
        columns: dict[str, ColumnFacts] = {}
        places: dict[str, Any] = {}
        for outside, selected in zip(from_.c, select.selected_columns, strict=True):
            place = inner.place(selected)
            places[outside.key] = selected
            if place is not None:
                columns[outside.key] = inner.column(place)
        if is_distinct(select):
            return columns, [frozenset(places)]
        groups = groups_of(select)
        names = [_name_of(group, places) for group in groups]
        if not groups or None in names:
            return columns, ()
        return columns, [frozenset(name for name in names if name is not None)]


def _name_of(group: Any, places: Mapping[str, Any]) -> str | None:
    """Return the name under which a subquery yields what it groups by."""
    return next((n for n, column in places.items() if hash(column) == hash(group)), None)


def _name_in(leaf: Leaf, column: Any) -> str | None:
    name = column.name if isinstance(column, Column) else getattr(column, "key", None)
    return name if name in leaf.columns else None


def _conjuncts(condition: Any) -> Iterator[Any]:
    if isinstance(condition, Grouping):
        yield from _conjuncts(condition.element)
    elif isinstance(condition, BooleanClauseList):
        if condition.operator is operators.and_:
            for one in condition.clauses:
                yield from _conjuncts(one)
    elif condition is not None:
        yield condition


def tables_of(from_: Any) -> Iterator[Table]:
    """Yield the tables below something that is selected from."""
    if isinstance(from_, Table):
        yield from_
    elif isinstance(from_, Join):
        yield from tables_of(from_.left)
        yield from tables_of(from_.right)
    elif isinstance(from_, Select):
        for inner in from_.get_final_froms():
            yield from tables_of(inner)
    elif getattr(from_, "element", None) is not None:
        yield from tables_of(from_.element)


def check_key(graph: Graph, columns: Sequence[Any]) -> list[ColumnFacts]:
    """
    Return the facts of a key's columns, which are unique together in the result.

    Raises `ConfigurationError` for a key that is not, or that rows may lack.
    """
    places = []
    for column in columns:
        place = graph.place(column)
        if place is None or not graph.leaves[place[0]].is_table:
            raise ConfigurationError(
                f"the key's {getattr(column, 'key', None) or column} is no column of a table that "
                "the select reads: page by columns of tables"
            )
        leaf = graph.leaves[place[0]]
        if not leaf.unique and leaf.short:
            raise ConfigurationError(_not_unique(graph, [place], [leaf]))
        if leaf.optional or not leaf.columns[place[1]].required:
            why = "behind an outer join" if leaf.optional else "in the database"
            raise ConfigurationError(
                f"the key's column {column.key} may be null {why}: page by another"
            )
        places.append(place)
    missing = graph.missing(places)
    if missing:
        raise ConfigurationError(_not_unique(graph, places, missing))
    return [graph.column(place) for place in places]


def _not_unique(graph: Graph, places: Sequence[Place], missing: Sequence[Leaf]) -> str:
    names = ", ".join(name for _, name in places)
    own = [graph.leaves[number] for number, _ in places]
    leaf = next((leaf for leaf in missing if leaf in own), missing[0])
    because = f" ({'; '.join(leaf.short)})" if leaf.short else ""
    if leaf in own:
        return (
            f"({names}) is not unique in {leaf.name}: the database has no unique index of these "
            f"columns{because}; add the primary key to the key"
        )
    repeats = f"{leaf.name}, which the select joins, can yield a row more than once"
    if leaf.optional or not leaf.unique or not leaf.is_table:
        return f"{repeats}{because}: say it with EXISTS (.any(), .has()) or IN"
    key = [f"{graph.leaves[number].title}.{name}" for number, name in places]
    more = [
        f"{leaf.title}.{name}"
        for leaf in missing
        if leaf.unique and not leaf.optional and leaf.is_table
        for name in min(map(sorted, leaf.unique), key=len)
    ]
    return f"{repeats}: add its key, key=({', '.join([*key, *more])}), or say it with EXISTS"
