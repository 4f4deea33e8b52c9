"""
`selectinload` without a second statement each time.

SQLAlchemy builds the Select of a `selectinload` anew for each execution: building, key and an IN of
as many parameters as there are rows are some 150 of a page's 700 microseconds. Here SQLAlchemy
builds it once for a compiled statement; it is kept with that and ends with it in the cache.

    a selectinload runs -> not ours, or of a kind that is left alone -> SQLAlchemy's way
                        -> kept, with the same options               -> loaded with it
                        -> otherwise: SQLAlchemy builds, we keep      -> loaded with it

What is kept depends on no engine: `KeyList` is written for each as it is compiled, and the session
asks `get_bind` with the statement, as ever.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Select
from sqlalchemy.sql.operators import in_op

from ..database.sqlalchemy_private import with_condition
from . import _sqlalchemy as private
from .key_list import KEYS, KeyList, element_type
from .targets import setting_of

_MARK = "async_loader.selectin"
_stock: Any = None
_installed = False


class Kept(NamedTuple):
    """A Select, and the options that it was built with."""

    select: Select[Any]
    options: tuple[Any, ...]


def install() -> None:
    """Put the loader in its place, unless it is there; under what others have put there since."""
    global _stock, _installed
    if not _installed:
        _stock, _installed = private.loading(), True
        private.replace_loading(_load_for_path)


def remove() -> None:
    """Put back what was there. Somebody else who is on top stays, and calls what was there."""
    global _installed  # noqa: PLW0603  as above
    if private.loading() is _load_for_path:
        private.replace_loading(_stock)
        _installed = False


def is_installed() -> bool:
    """Tell whether the loader is in its place."""
    return _installed


def refusal(loader: Any, entity: Any, loadopt: Any, recursion_depth: int | None) -> str | None:
    """Return why a `selectinload` is left to SQLAlchemy, or None."""
    if loader.parent_property.secondary is not None:
        return "goes by a secondary table"
    if private.query_info(loader).load_with_join:
        return "its statement joins the parent"
    if entity.is_aliased_class:
        return "loads an alias"
    if recursion_depth is not None:
        return "has a recursion_depth"
    if private.extra_criteria(loadopt):
        return "has criteria in the option"
    return None


def _load_for_path(  # noqa: PLR0917  SQLAlchemy's signature
    self: Any,
    context: Any,
    path: Any,
    states: Any,
    load_only: Any,
    effective_entity: Any,
    loadopt: Any,
    recursion_depth: Any,
    execution_options: Any,
) -> None:
    """Load what SQLAlchemy's method of this name does; its arguments are that one's."""
    rest = (load_only, effective_entity, loadopt, recursion_depth, execution_options)
    setting = setting_of(context.session)
    if (
        setting is None
        or not setting.selectin
        or (load_only and self.key not in load_only)
        or refusal(self, effective_entity, loadopt, recursion_depth) is not None
    ):
        _stock(self, context, path, states, *rest)
        return
    known = context.compile_state.attributes
    place = (_MARK, self, path.path, effective_entity, context.populate_existing)
    kept = known.get(place)
    if kept is None or not _same(kept.options, private.strategy_options(context)):
        _built(self, known, place, (context, path, states, *rest))
        return
    found = _by_key(self, states)
    if found is None:  # a foreign key is not loaded: SQLAlchemy joins
        _stock(self, context, path, states, *rest)
        return
    method, arguments = found
    chunk = private.chunk_arguments(self, loadopt)
    method(*arguments, private.query_info(self), kept.select, context, execution_options, *chunk)


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Tell whether options are the same ones: of equal ones the criteria may have other values."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def _built(loader: Any, known: Any, place: Any, arguments: tuple[Any, ...]) -> None:
    """Have SQLAlchemy build its Select; keep it, and load with it."""
    recorder = private.Recorder(loader)
    _stock(recorder, *arguments)
    if recorder.method is None:
        return
    load = getattr(loader, recorder.method)
    if not any(one is private.query_info(loader) for one in recorder.arguments):
        load(*recorder.arguments)  # it fell back to its join
        return
    select = next(one for one in recorder.arguments if isinstance(one, Select))
    better = _with_key_list(loader, select)
    known[place] = Kept(better, private.options_of(select))
    load(*(better if one is select else one for one in recorder.arguments))


def _with_key_list(loader: Any, select: Select[Any]) -> Select[Any]:
    """Return the Select with its keys as a list, or itself where that may not be the same."""
    info, conditions = private.query_info(loader), private.conditions_of(select)
    if not info.zero_idx or len(conditions) != 1:
        return select
    elements, keys = element_type(info.in_expr.type), getattr(conditions[0], "right", None)
    by_keys = isinstance(keys, BindParameter) and keys.key == KEYS
    if elements is None or not by_keys or getattr(conditions[0], "operator", None) is not in_op:
        return select
    return with_condition(select, KeyList(conditions[0].left, elements))


def _by_key(loader: Any, states: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """Return what loads, and the objects by the keys to ask for; None: one is not loaded."""
    if not private.query_info(loader).load_only_child:
        mine = [(state.key[1], state, state.dict, overwrite) for state, overwrite in states]
        return private.via_parent(loader), (mine,)
    by_key: dict[Any, list[Any]] = defaultdict(list)
    without: list[Any] = []
    identity = private.identity_of_child(loader)
    for state, overwrite in states:
        values = state.dict
        key = identity(state, values)
        if private.NOT_LOADED in key:
            return None
        (without if None in key else by_key[key]).append((state, values, overwrite))
    return private.via_child(loader), (by_key, without)
