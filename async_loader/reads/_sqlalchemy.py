"""
Every private name of SQLAlchemy that the fast paths touch, in one place.

What is replaced, and what is relied on, is the same in 2.0.40 to 2.1 but for the differences that
are spelt out here. `supported.py` holds a SQLAlchemy that nobody has read yet against this page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Select, inspect
from sqlalchemy.orm import PassiveFlag, strategies
from sqlalchemy.orm.base import LoaderCallableStatus
from sqlalchemy.types import TypeEngine

# --- selectinload ---------------------------------------------------------------------------------

SelectInLoader: Any = getattr(strategies, "_SelectInLoader", None) or getattr(
    strategies, "SelectInLoader", None
)

NOT_LOADED = LoaderCallableStatus.PASSIVE_NO_RESULT

# Every name that `_load_for_path` has used. A name that is not here is a rule that nobody has read.
_NAMES = """
    Bundle LABEL_STYLE_TABLENAME_PLUS_COL LoaderCallableStatus LoaderCriteriaOption ORMCompileState
    PASSIVE_NO_FETCH PASSIVE_NO_RESULT Select _ORMCompileState __clause_element__
    _adapt_cached_option_to_uncached_option _adapt_element _adapter _add_compile_state_func
    _add_context_option _create_raw_select _extra_criteria _fallback_query_info
    _generate_extra_criteria _get_state_attr_by_column _join_condition _load_via_child
    _load_via_parent _loader_strategy_options _parent_alias _query_info _set_chunksize
    _state_ident_getter _truncate_recursive _update_compile_options _with_options append attributes
    bindparam child_lookup_cols collections compile_state default_compile_options defaultdict dict
    eager_order_by execution_options filter getattr in_ in_expr is_aliased_class join key list
    load_only_child load_with_join of_type options order_by orm_util parent parent_property pk_cols
    populate_existing secondary secondaryjoin select_from select_statement sql to_list traverse
    tuple user_passed_query util zip
"""
KNOWN_OF_LOADING = frozenset(_NAMES.split())
LOADING_TAKES = (
    "self", "context", "path", "states", "load_only", "effective_entity", "loadopt",
    "recursion_depth", "execution_options",
)  # fmt: skip
LOADING_ASKS = frozenset({"load_only_child", "load_with_join", "in_expr", "zero_idx"})
VIA_PARENT_TAKES = ("self", "our_states", "query_info", "q", "context", "execution_options")
VIA_CHILD_TAKES = (*VIA_PARENT_TAKES[:2], "none_states", *VIA_PARENT_TAKES[2:])


def loading() -> Any:
    """Return the method that loads what one `selectinload` asks for, of whoever has replaced it."""
    return SelectInLoader._load_for_path


def replace_loading(function: Any) -> None:
    """Have another method in its place."""
    SelectInLoader._load_for_path = function


def via_child(loader: Any) -> Callable[..., None]:
    """Return what loads the objects that others refer to."""
    return loader._load_via_child  # type: ignore[no-any-return]


def via_parent(loader: Any) -> Callable[..., None]:
    """Return what loads the objects that refer to others."""
    return loader._load_via_parent  # type: ignore[no-any-return]


class Recorder:
    """
    Stands in for a loader while SQLAlchemy builds its Select, and notes what it would have loaded.

    So there is no second description here of what such a Select is.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.method: str | None = None
        self.arguments: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def _load_via_child(self, *arguments: Any) -> None:
        self.method, self.arguments = "_load_via_child", arguments

    def _load_via_parent(self, *arguments: Any) -> None:
        self.method, self.arguments = "_load_via_parent", arguments


def query_info(loader: Any) -> Any:
    """Return how a loader finds rows: `in_expr`, `load_only_child`, `load_with_join` ..."""
    return loader._query_info


def extra_criteria(loadopt: Any) -> bool:
    """Tell whether a loader option has criteria of its own (`Parent.children.and_(...)`)."""
    return bool(loadopt and loadopt._extra_criteria)


def chunk_arguments(loader: Any, loadopt: Any) -> tuple[Any, ...]:
    """Return what 2.1 adds to the arguments of a load: how many keys a statement takes."""
    sized = getattr(loader, "_set_chunksize", None)
    return () if sized is None else (sized(loadopt),)


def identity_of_child(loader: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Return what reads, of a state and its dict, the key of the object that it refers to."""
    mapper, columns = loader.parent, loader._query_info.child_lookup_cols
    passive = PassiveFlag.PASSIVE_NO_FETCH
    if hasattr(mapper, "_state_ident_getter"):
        return mapper._state_ident_getter(columns, passive=passive)  # type: ignore[no-any-return]
    read = mapper._get_state_attr_by_column
    return lambda state, dict_: tuple(read(state, dict_, c, passive=passive) for c in columns)


def strategy_options(context: Any) -> tuple[Any, ...]:
    """Return the options of a query as a loader's own statement is given them."""
    if hasattr(context, "_loader_strategy_options"):
        return tuple(context._loader_strategy_options())
    cached, asked = context.compile_state.select_statement, context.user_passed_query
    if cached is asked:
        return tuple(cached._with_options)
    return tuple(
        mine._adapt_cached_option_to_uncached_option(context, theirs)
        for mine, theirs in zip(cached._with_options, asked._with_options, strict=False)
    )


def options_of(select: Select[Any]) -> tuple[Any, ...]:
    """Return the options of a statement."""
    return tuple(select._with_options)


def conditions_of(select: Select[Any]) -> Sequence[Any]:
    """Return what a WHERE consists of."""
    return select._where_criteria


def has_variants(type_: TypeEngine[Any]) -> bool:
    """Tell whether a type is another one on some database."""
    return bool(type_._variant_mapping)


# --- what a statement loads, for `explain` --------------------------------------------------------


def compile_state(statement: Select[Any], dialect: Any) -> Any:
    """Return what the ORM has made of a statement."""
    compiled: Any = statement.compile(dialect=dialect)
    return compiled.compile_state


def path_of(entity: Any) -> Any:
    """Return where the paths of what is loaded with an entity begin."""
    return entity._path_registry


def strategy_of(prop: Any, state: Any, path: Any) -> tuple[Any, Any]:
    """Return the option that says how a relationship is loaded, or None, and the strategy's key."""
    option = prop._get_context_loader(state, path)
    return option, (
        option.strategy if option is not None and option.strategy else prop.strategy_key
    )


def loader_of(prop: Any, strategy: Any) -> Any:
    """Return the loader of a relationship."""
    return prop._get_strategy(strategy)


def entity_at(prop: Any, state: Any, path: Any) -> Any:
    """Return what a relationship loads: its mapper, or the alias that an option names."""
    alias = path[prop].get(state.attributes, "path_with_polymorphic", None)
    return prop.entity if alias is None else inspect(alias)
