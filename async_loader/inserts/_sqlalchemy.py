"""
Every private name of SQLAlchemy that batching touches, in one place.

2.1 gave many of these an underscore that they lacked in 2.0, and added values that the ORM itself
supplies (`Mapper._insert_orm_defaults`). Everything else in the package imports from here, so
that a new release of SQLAlchemy is read against one page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import (
    Mapper,
    Session,
    attributes,
    bulk_persistence,
    dependency,
    identity,
    persistence,
    sync,
    unitofwork,
)
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.sql.schema import CallableColumnDefault
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import topological

__all__ = [
    "NO_VALUE",
    "NO_VALUES",
    "RELATIONSHIP_ATTRIBUTES",
    "DeleteAll",
    "DeleteState",
    "ManyToMany",
    "ManyToOne",
    "OneToMany",
    "PostUpdateAll",
    "SaveUpdateAll",
    "SaveUpdateState",
    "ScalarAttributeImpl",
    "UOWTransaction",
    "WeakInstanceDict",
    "autoflush",
    "bind_processor",
    "collect_delete_commands",
    "collect_insert_commands",
    "collect_post_update_commands",
    "collect_update_commands",
    "connections_for_states",
    "counts_versions",
    "delete_obj",
    "emit_delete_statements",
    "emit_insert_statements",
    "emit_post_update_statements",
    "emit_update_statements",
    "expand_attributes",
    "finalize_insert_update",
    "generate_actions",
    "has_bind_expression",
    "has_one_bind",
    "ignores_context",
    "is_autocommit",
    "organize_states_for_delete",
    "organize_states_for_post_update",
    "organize_states_for_save",
    "orm_defaults",
    "polymorphic_attribute",
    "populate",
    "post_update",
    "postfetch",
    "postfetch_post_update",
    "presort_order",
    "raise_as_executed",
    "raise_as_statement",
    "render_translated",
    "save_obj",
    "statement_context",
    "states_of",
    "topological",
    "translating_preparer",
]


def _name(module: Any, name: str) -> Any:
    """Return the attribute as 2.1 calls it, or as 2.0 did."""
    found = getattr(module, f"_{name}", None)
    return found if found is not None else getattr(module, name)


SaveUpdateAll: Any = _name(unitofwork, "SaveUpdateAll")
SaveUpdateState: Any = _name(unitofwork, "SaveUpdateState")
DeleteAll: Any = _name(unitofwork, "DeleteAll")
DeleteState: Any = _name(unitofwork, "DeleteState")
PostUpdateAll: Any = _name(unitofwork, "PostUpdateAll")
OneToMany: Any = _name(dependency, "OneToManyDP")
ManyToOne: Any = _name(dependency, "ManyToOneDP")
ManyToMany: Any = _name(dependency, "ManyToManyDP")
ScalarAttributeImpl: Any = _name(attributes, "ScalarAttributeImpl")
RELATIONSHIP_ATTRIBUTES = frozenset(
    {
        _name(attributes, "CollectionAttributeImpl"),
        _name(attributes, "ScalarObjectAttributeImpl"),
    }
)
WeakInstanceDict: Any = _name(identity, "WeakInstanceDict")
save_obj: Callable[..., None] = _name(persistence, "save_obj")
delete_obj: Callable[..., None] = _name(persistence, "delete_obj")
post_update: Callable[..., None] = _name(persistence, "post_update")
populate: Callable[..., None] = _name(sync, "populate")

collect_insert_commands: Any = persistence._collect_insert_commands
connections_for_states: Any = persistence._connections_for_states
emit_insert_statements: Any = persistence._emit_insert_statements
finalize_insert_update: Any = persistence._finalize_insert_update_commands
organize_states_for_save: Any = persistence._organize_states_for_save
organize_states_for_delete: Any = persistence._organize_states_for_delete
organize_states_for_post_update: Any = persistence._organize_states_for_post_update
collect_update_commands: Any = persistence._collect_update_commands
collect_post_update_commands: Any = persistence._collect_post_update_commands
collect_delete_commands: Any = persistence._collect_delete_commands
emit_update_statements: Any = persistence._emit_update_statements
emit_post_update_statements: Any = persistence._emit_post_update_statements
emit_delete_statements: Any = persistence._emit_delete_statements
postfetch: Any = persistence._postfetch
postfetch_post_update: Any = persistence._postfetch_post_update

# What `committed_state` holds where an attribute had no value before.
NO_VALUES = frozenset(map(id, (NO_VALUE, getattr(attributes, "NEVER_SET", NO_VALUE))))


class OrmDefault(NamedTuple):
    """A value that the ORM supplies for an unset attribute (2.1: dataclass defaults)."""

    key: str
    column: Any
    value: Any


def has_one_bind(session: Any) -> bool:
    """Tell whether every mapper of a session is served by the same connection."""
    by_mapper = session.binds if hasattr(session, "binds") else session._Session__binds
    plain = type(session).get_bind is Session.get_bind and session.bind is not None
    return plain and not by_mapper


def orm_defaults(mapper: Any, table: Any) -> Sequence[OrmDefault]:
    """Return what the ORM itself puts into an insert for unset attributes; none in 2.0."""
    by_table = getattr(mapper, "_insert_orm_defaults", None)
    return [OrmDefault(*row) for row in by_table[table]] if by_table else []


def states_of(uow: Any, base_mapper: Any, *, deleted: bool = False) -> list[Any]:
    """Return what a flush saves, or deletes, of one hierarchy."""
    return list(uow.states_for_mapper_hierarchy(base_mapper, deleted, False))


def post_updates_of(uow: Any, action: Any) -> tuple[Any, list[Any], Any]:
    """Return the mapper, the objects and the columns of a PostUpdateAll."""
    states, columns = uow.post_update_states[action.mapper]
    mine = [state for state in states if uow.states[state][0] == action.isdelete]
    return action.mapper, mine, columns


class _Presort:
    """Stands in for a flush while relationships say which objects they look at."""

    def __init__(self) -> None:
        self.order: dict[tuple[Any, bool], tuple[Mapper[Any], ...]] = {}

    def register_preprocessor(self, processor: Any, from_parent: bool) -> None:
        owner = processor.parent if from_parent else processor.mapper
        self.order.setdefault((processor, from_parent), tuple(owner.self_and_descendants))


def presort_order(mappers: Sequence[Any]) -> list[tuple[Any | None, tuple[Mapper[Any], ...]]]:
    """Return the relationships of a flush as it comes to them, and the mappers each looks at.

    Of one that only looks for changed keys, None.
    """
    presort = _Presort()
    for mapper in mappers:
        for processor in mapper._dependency_processors:
            processor.per_property_preprocessors(presort)
        for prop in mapper.relationships:
            if not prop.viewonly:
                prop._dependency_processor.per_property_preprocessors(presort)
    return [
        (one if from_parent else None, mine) for (one, from_parent), mine in presort.order.items()
    ]


def generate_actions(uow: Any) -> list[Any]:
    """Run the presort and return the actions of a flush, in SQLAlchemy's stable order."""
    actions: Any = uow._generate_actions()
    return sorted(actions, key=lambda action: action.sort_key)


# Column defaults that take no argument are wrapped by a lambda that drops the context; there
# are two places that do it, and whatever has other code wants a context.
_WRAPPERS = {
    CallableColumnDefault(function).arg.__code__  # type: ignore[attr-defined]  # always a lambda
    for function in (lambda: None, dict)
}


def ignores_context(default: Any) -> bool:
    """Tell whether a callable column default takes no execution context."""
    return getattr(default.arg, "__code__", None) in _WRAPPERS


def counts_versions(mapper: Any) -> bool:
    """Tell whether a mapper's versions are numbers that SQLAlchemy itself counts."""
    generator = mapper.version_id_generator
    return getattr(generator, "__module__", None) == Mapper.__module__


def autoflush(session: Session) -> None:
    """Flush as before a query: if the session does, and is not flushing already."""
    session._autoflush()


def bind_processor(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what turns a value of a type into the driver's, or None if it stays as it is."""
    return type_._cached_bind_processor(dialect)


def has_bind_expression(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether a type wraps its parameters in SQL."""
    return type_.dialect_impl(dialect)._has_bind_expression


def polymorphic_attribute(mapper: Mapper[Any]) -> str | None:
    """Return the attribute that says of which class a row is, if the ORM sets it."""
    setter = mapper._set_polymorphic_identity
    return mapper._polymorphic_attr_key if setter is not None else None


def expand_attributes(mapper: Mapper[Any], row: dict[str, Any]) -> None:
    """Put composites and synonyms into their columns, as an ORM bulk insert does."""
    module: Any = bulk_persistence
    in_2_1 = hasattr(module, "_expand_other_attrs")
    expand = module._expand_other_attrs if in_2_1 else module._expand_composites
    expand(mapper, [row])


def raise_as_statement(connection: Connection, error: BaseException, statement: str) -> NoReturn:
    """Raise what SQLAlchemy does for what defaults and types raise. Call it in the handler."""
    raw: Any = connection
    raw._handle_dbapi_exception(error, statement, None, None, None)
    raise AssertionError


def raise_as_executed(connection: Connection, error: BaseException, statement: str) -> NoReturn:
    """Raise what SQLAlchemy does for what the driver raises: handlers told, class translated.

    To be called in the handler. An error that is not the driver's stays what it is.
    """
    raw: Any = connection
    pooled = raw._dbapi_connection
    is_asyncpg = raw.dialect.driver == "asyncpg"  # psycopg raises what SQLAlchemy knows
    if isinstance(error, Exception) and is_asyncpg and pooled is not None:
        try:
            pooled.dbapi_connection._handle_exception(error)
        except Exception as translated:
            _raise_handled(raw, translated, statement)
    _raise_handled(raw, error, statement)


def _raise_handled(connection: Any, error: BaseException, statement: str) -> NoReturn:
    is_of_driver = isinstance(error, connection.dialect.loaded_dbapi.Error)
    shown = statement if is_of_driver else None
    connection._handle_dbapi_exception(error, shown, None, None, None)
    raise AssertionError


def is_autocommit(connection: Any) -> bool:
    """Tell whether each statement of a connection is a transaction of its own, whoever said so."""
    if connection._is_autocommit_isolation():
        return True
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def statement_context(connection: Any, sql: str, parameters: tuple[Any, ...]) -> Any:
    """Return the execution context that SQLAlchemy would have made for a statement in text."""
    dialect = connection.dialect
    return dialect.execution_ctx_cls._init_statement(
        dialect, connection, connection._dbapi_connection, {}, sql, [parameters]
    )


def translating_preparer(dialect: Any, translation: Any) -> Any:
    """Return what quotes names, with marks in the place of schemas that are translated."""
    return dialect.identifier_preparer._with_schema_translate(translation)


def render_translated(preparer: Any, sql: str, translation: Any) -> str:
    """Return SQL with the schemas in the place of the marks."""
    text: str = preparer._render_schema_translates(sql, translation)
    return text


def label(column: Any) -> str:
    """Return the name under which the ORM binds what a row is found by."""
    return str(column._label)


def tables_of(base_mapper: Any) -> list[tuple[Any, Any]]:
    """Return the tables of a hierarchy with the mapper of each, those inherited from first."""
    return [
        (table, mapper)
        for table, mapper in base_mapper._sorted_tables.items()
        if table in mapper._pks_by_table
    ]


def fills(mapper: Any, table: Any) -> bool:
    """Tell whether objects of a mapper have a row in a table."""
    return table in mapper._pks_by_table


def key_columns(mapper: Any, table: Any) -> Sequence[Any]:
    """Return the columns by which the ORM finds rows of a table, in its order."""
    return tuple(mapper._pks_by_table[table])


def version_column(mapper: Any, table: Any) -> Any | None:
    """Return the column that a table's rows have a version in, if they have one."""
    column = mapper.version_id_col
    return column if column is not None and column in mapper._cols_by_table[table] else None


def committed_version(mapper: Any, state: Any, values: Any) -> Any:
    """Return the version that an object was loaded with."""
    column = mapper.version_id_col
    if column is None:
        return None
    return mapper._get_committed_state_attr_by_column(state, values, column)


def makes_version_there(mapper: Any) -> bool:
    """Tell whether the server makes a mapper's versions."""
    return bool(mapper._version_id_has_server_side_value)


def server_made_on_update(mapper: Any, table: Any) -> Sequence[Any]:
    """Return the columns that the server fills when a row is updated."""
    return tuple(mapper._server_onupdate_default_cols[table])


def memo(mapper: Any, key: Any, make: Callable[[], Any]) -> Any:
    """Return what was made once for a mapper, until its mapping changes."""
    return mapper._memo(key, make)


def compiled_cache(mapper: Any) -> Any:
    """Return where the ORM keeps the compiled statements of a mapper."""
    return mapper._compiled_cache
