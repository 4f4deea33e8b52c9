"""
The short way through a flush of new objects only.

SQLAlchemy sorts the actions of each flush anew, because histories decide which there are. When
all objects are pending and every relationship holds nothing but what was added to it, the order
depends on the mappers alone: it is worked out once for a set of mappers, and carrying a key
from parent to child is setting an attribute. The first thing that looks different sends the
whole flush the long way round, before anything has been done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from sqlalchemy.exc import CircularDependencyError
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.collections import InstrumentedList
from sqlalchemy.orm.exc import UnmappedColumnError

from ._sqlalchemy import (
    NO_VALUE,
    NO_VALUES,
    RELATIONSHIP_ATTRIBUTES,
    ManyToMany,
    ManyToOne,
    OneToMany,
    ScalarAttributeImpl,
    UOWTransaction,
    populate,
    topological,
)
from .keys import asks_ahead
from .places import NotSimpleError, Place, place, reached_in

State = Any


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """One relationship of one mapper, as far as its new objects are concerned."""

    processor: Any  # SQLAlchemy's own, for what is not simple
    key: str
    is_collection: bool
    kind: type[Any]
    target: Mapper[Any]
    pairs: tuple[tuple[str, str], ...]  # attribute of the parent, attribute of the child
    refers_to_itself: bool

    @property
    def children(self) -> Any:
        """The mapper of those who get the key."""
        processor = self.processor
        return processor.parent if self.kind is ManyToOne else processor.mapper


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The order of a flush: a hierarchy with its mappers, or a relationship, one by one."""

    steps: tuple[tuple[Mapper[Any], tuple[Mapper[Any], ...]] | tuple[Any, None], ...]
    tree: Place | None  # of a hierarchy that refers to itself
    asking: int  # how many hierarchies may have to ask for their keys beforehand


@dataclass(frozen=True, slots=True, eq=False)
class FlushOrder:
    """The edges of a flush of some mappers, and its order by those that objects use."""

    mappers: frozenset[Mapper[Any]]
    edges: dict[Mapper[Any], tuple[Edge, ...]]
    reached: frozenset[Any]  # processors of edges that count, whether or not an object uses them
    is_by_turns: bool  # which these are depends on whose objects the flush came to first
    orders: dict[frozenset[Edge], Order | None] = field(default_factory=dict)

    def order(self, used: Iterable[Edge]) -> Order:
        """Return the order in which SQLAlchemy would come to the tables.

        Raises NotSimpleError when only the objects decide it.
        """
        telling = frozenset(
            edge for edge in used if edge.refers_to_itself or edge.processor not in self.reached
        )
        if telling not in self.orders:
            try:
                self.orders[telling] = self._make(telling)
            except (NotSimpleError, CircularDependencyError):
                self.orders[telling] = None
        found = self.orders[telling]
        if found is None:
            raise NotSimpleError
        return found

    def _make(self, telling: frozenset[Edge]) -> Order:
        bases: dict[Any, list[Mapper[Any]]] = {}
        for mapper in self.mappers:
            bases.setdefault(mapper.base_mapper, []).append(mapper)
        counting: set[Edge] = set()
        trees: set[Any] = set()
        for edge in {edge for own in self.edges.values() for edge in own}:
            if edge.refers_to_itself and edge.kind is not ManyToMany:
                if edge in telling:
                    trees.add(edge.target.base_mapper)
            elif edge in telling or (edge.processor in self.reached and not edge.refers_to_itself):
                counting.add(edge)
        if any(len(mapper.tables) > 1 for base in trees for mapper in bases[base]):
            raise NotSimpleError
        before = {pair for edge in counting for pair in _dependencies(edge)}
        nodes = set(bases) | {node for pair in before for node in pair}
        ordered = sorted(nodes, key=_sort_key)
        # Round by round: what waits for more comes later, which among others tells the order.
        # A key is carried when SQLAlchemy would: the tables after that may fail.
        steps: list[Any] = []
        for node in topological.sort(before, ordered):
            if node in bases:
                steps.append((node, tuple(bases[node])))
            elif isinstance(node, tuple) and not node[1]:
                steps.append((node[0], None))
        asking = sum(any(map(asks_ahead, same)) for same in bases.values())
        return Order(tuple(steps), _tree_place(trees, set(bases), counting, ordered), asking)


def _tree_place(
    trees: set[Any], bases: set[Any], counting: set[Edge], ordered: Sequence[Any]
) -> Place | None:
    if not trees:
        return None
    (base, *more) = trees
    if more:
        raise NotSimpleError
    pairs = [(edge.processor.parent.base_mapper is base, _dependencies(edge)) for edge in counting]
    return place(base, bases, pairs, ordered)


def _dependencies(edge: Edge) -> set[tuple[Any, Any]]:
    """Return what `per_property_dependencies` says of saving; hierarchies stand for that."""
    parent, child = edge.processor.parent.base_mapper, edge.processor.mapper.base_mapper
    after_save, before_delete = (edge.processor, False), (edge.processor, True)
    if edge.kind is ManyToOne:
        return {(child, after_save), (after_save, parent)}
    if edge.kind is OneToMany:
        return {(parent, after_save), (after_save, child), (before_delete, child)}
    return {
        (parent, after_save),
        (child, after_save),
        (before_delete, parent),
        (before_delete, child),
    }


def _sort_key(node: Any) -> tuple[Any, ...]:
    if isinstance(node, tuple):
        processor, is_delete = node
        return "ProcessAll", processor.sort_key, is_delete
    return "SaveUpdateAll", node._sort_key


_MEMO = "async_loader.inserts.flush_orders"
_MOST_TURNS = 500


def lane(mappers: Iterable[Mapper[Any]]) -> FlushOrder | None:
    """Return what connects the mappers of a flush, or None when only the objects tell.

    They are given in the order in which the flush came to their first objects.
    """
    in_turn = tuple(mappers)
    names = frozenset(in_turn)
    first: Any = next(iter(names))
    known: dict[Any, FlushOrder | None] = first._memo(_MEMO, dict)
    if names not in known:
        known[names] = _new_lane(names, in_turn)
    found = known[names]
    if found is None or not found.is_by_turns:
        return found
    if in_turn in known:
        return known[in_turn]
    reached, _ = reached_in(in_turn)
    if (names, reached) not in known:
        known[names, reached] = _new_lane(names, in_turn)
    if len(known) < _MOST_TURNS:
        known[in_turn] = known[names, reached]
    return known[names, reached]


def _new_lane(names: frozenset[Mapper[Any]], in_turn: Sequence[Mapper[Any]]) -> FlushOrder | None:
    try:
        # In the order that SQLAlchemy takes the objects of a relationship in.
        edges = {
            mapper: tuple(_edges(mapper))
            for base in {mapper.base_mapper: None for mapper in names}
            for mapper in base.self_and_descendants
            if mapper in names
        }
    except (NotSimpleError, UnmappedColumnError):
        return None
    reached, is_by_turns = reached_in(in_turn)
    return FlushOrder(names, edges, reached, is_by_turns)


def _edge(processor: Any, pairs: tuple[tuple[str, str], ...]) -> Edge:
    prop = processor.prop
    known: dict[Any, Edge] = prop.parent._memo("async_loader.inserts.edges", dict)
    if prop not in known:  # inheriting mappers have it, too
        itself = bool(prop._is_self_referential)
        is_collection = bool(prop.uselist)
        known[prop] = Edge(
            processor, prop.key, is_collection, type(processor), prop.mapper, pairs, itself
        )
    return known[prop]


def _edges(mapper: Any) -> Iterator[Edge]:
    for prop in mapper.relationships:
        if prop.viewonly:
            continue
        processor = prop._dependency_processor
        kind = type(processor)
        if processor.post_update or kind not in {OneToMany, ManyToOne, ManyToMany}:
            raise NotSimpleError
        if type(mapper.class_manager[prop.key].impl) not in RELATIONSHIP_ATTRIBUTES:
            raise NotSimpleError  # dynamic, write-only, or somebody's own
        pairs: list[tuple[str, str]] = []
        if kind is not ManyToMany:
            parent, child = processor.parent, processor.mapper
            if kind is ManyToOne:
                parent, child = child, parent
            for left, right in prop.synchronize_pairs:
                columns = parent._columntoproperty[left], child._columntoproperty[right]
                pairs.append((columns[0].key, columns[1].key))
        yield _edge(processor, tuple(pairs))


Link = tuple[State, State, Edge]  # parent, child
Carried = dict[tuple[State, tuple[tuple[str, str], ...]], State]  # whose key a child has by now


@dataclass(slots=True, eq=False)
class KeyPropagation:
    """Keys to set on children once their parents have theirs, by relationship."""

    links: dict[Any, list[Link]]  # by processor
    later: dict[Any, list[State]]  # many-to-many: processor to states
    used: set[Edge] = field(default_factory=set)
    carried: Carried = field(default_factory=dict)
    settled: set[Mapper[Any]] = field(default_factory=set)  # with a parent that is no news

    def of(self, edges: Iterable[Edge]) -> list[Link]:
        """Return the links of some relationships."""
        processors = sorted({edge.processor for edge in edges}, key=attrgetter("sort_key"))
        return [link for one in processors for link in self.links.get(one, ())]

    def run(self, uow: UOWTransaction, processor: Any) -> None:
        """Do what a relationship does of its own; a tree sees to the links within it."""
        if processor in self.links:
            carry_keys(uow, self.links[processor], self.carried)
        if processor in self.later:
            processor.process_saves(uow, self.later[processor])


def plan_carry(session: Session, uow: UOWTransaction, found: FlushOrder) -> KeyPropagation:
    """Look at every relationship of every object; raise NotSimpleError for the long way."""
    carry = KeyPropagation({}, {})
    states: Any = uow.states
    for mapper, edges in found.edges.items():
        if not edges:
            continue
        for state in uow.mappers[mapper]:
            attributes = state.dict
            if "_pending_mutations" in state.__dict__:
                raise NotSimpleError
            for edge in edges:
                if edge.key in attributes:
                    if edge.kind is ManyToOne:
                        _to_parent(session, states, state, edge, carry)
                    else:
                        _to_children(states, state, edge, carry)
                elif edge.key in state.committed_state:
                    raise NotSimpleError
    return carry


_NO_HISTORY: Any = object()


def _to_parent(session: Any, states: Any, state: State, edge: Edge, carry: KeyPropagation) -> None:
    original = state.committed_state.get(edge.key, _NO_HISTORY)
    if original is _NO_HISTORY:
        # After a rollback: no key is carried, but within a table the parent comes first.
        if edge.refers_to_itself and _state_of(state.dict[edge.key]) in states:
            raise NotSimpleError
        carry.settled.add(state.manager.mapper.base_mapper)
        return
    parent = state.dict[edge.key]
    if parent is None or not (original is None or id(original) in NO_VALUES):
        raise NotSimpleError
    parent_state = parent._sa_instance_state
    _verify(edge, parent_state)
    if parent_state not in states and not session._contains_state(parent_state):
        raise NotSimpleError
    carry.links.setdefault(edge.processor, []).append((parent_state, state, edge))
    carry.used.add(edge)


def _to_children(states: Any, state: State, edge: Edge, carry: KeyPropagation) -> None:
    value = state.dict[edge.key]
    if not edge.is_collection:
        children = [] if value is None else [value]
    else:
        children = list(value if type(value) is InstrumentedList else value._sa_adapter)
    original = state.committed_state.get(edge.key, _NO_HISTORY)
    if not children and original is _NO_HISTORY:
        return
    if not (original is None or id(original) in NO_VALUES or _is_empty(original)):
        raise NotSimpleError
    if not children:
        return
    carry.used.add(edge)
    for child in children:
        child_state = _state_of(child)
        if child_state is None or child_state not in states:
            raise NotSimpleError
        _verify(edge, child_state)
        if edge.kind is OneToMany:
            carry.links.setdefault(edge.processor, []).append((state, child_state, edge))
    if edge.kind is ManyToMany:
        carry.later.setdefault(edge.processor, []).append(state)


def _state_of(instance: Any) -> State | None:
    return getattr(instance, "_sa_instance_state", None)


def _is_empty(original: Any) -> bool:
    return original is not _NO_HISTORY and isinstance(original, list | set | dict) and not original


def _verify(edge: Edge, state: State) -> None:
    if state.manager.mapper is not edge.target:
        allow_subtypes = not edge.processor.enable_typechecks
        if not edge.target._canload(state, allow_subtypes=allow_subtypes):
            raise NotSimpleError


def carry_keys(uow: UOWTransaction, links: list[Link], carried: Carried) -> int:
    """Set foreign keys from parents that are saved, and return how often.

    It is what `sync.populate` does pair by pair.
    """
    count = 0
    for parent, child, edge in links:
        link = (child, edge.pairs)
        if carried.get(link) is parent:
            continue  # the other side of the same relationship; of several parents the last counts
        carried[link] = parent
        count += 1
        if parent not in uow.states:
            # A persistent parent may be expired: reading its key is SQLAlchemy's business.
            edge.processor.process_saves(uow, [child])
            continue
        source, target = parent.dict, child.dict
        manager, simple = child.manager, True
        for left, right in edge.pairs:
            implementation = manager[right].impl
            if (
                type(implementation) is ScalarAttributeImpl
                and left in source
                and child.modified
                and not implementation.active_history
                and not implementation.dispatch.set
                and child._last_known_values is None
            ):
                history = child.committed_state
                if right not in history:
                    history[right] = target.get(right, NO_VALUE)
                target[right] = source[left]
            else:
                simple = False
                break
        if not simple:
            del carried[link]
            processor = edge.processor
            mappers = processor.parent, processor.mapper
            if edge.kind is ManyToOne:
                mappers = mappers[1], mappers[0]
            pairs = processor.prop.synchronize_pairs
            populate(parent, mappers[0], child, mappers[1], pairs, uow, False)
    return count
