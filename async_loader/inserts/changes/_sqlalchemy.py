"""
What is private to SQLAlchemy of a statement: compiled once, bound, executed by a cursor.

The second page of `../_sqlalchemy.py`, for updates and deletes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.exc import PendingRollbackError, ResourceClosedError
from sqlalchemy.orm import context
from sqlalchemy.types import TypeEngine


class CompiledStatement(NamedTuple):
    """A statement as SQLAlchemy compiled it, and what of it is bound anew each time."""

    statement: Any
    compiled: Any
    extracted: Any
    cache_hit: Any
    given: dict[str, Any]  # 2.1: what it takes beside
    options: Any


def compile_cached(
    connection: Any, statement: Any, keys: Sequence[str], mapper: Any
) -> CompiledStatement:
    """Compile a statement as the ORM has `Connection.execute` do for one row of parameters."""
    cache = mapper._compiled_cache
    options = statement._execution_options.merge_with(
        connection._execution_options, {"compiled_cache": cache}
    )
    compiled, extracted, *given, cache_hit = statement._compile_w_cache(
        dialect=connection.dialect,
        compiled_cache=cache,
        column_keys=sorted(keys),
        for_executemany=False,
        schema_translate_map=options.get("schema_translate_map"),
        linting=connection.dialect.compiler_linting,
    )
    known = {"param_dict": given[0]} if given else {}
    return CompiledStatement(statement, compiled, extracted, cache_hit, known, options)


def bound_context(connection: Any, one: CompiledStatement, rows: Sequence[dict[str, Any]]) -> Any:
    """Return SQLAlchemy's execution context of some rows: defaults called, values bound.

    What either raises is raised as SQLAlchemy raises it.
    """
    dialect = connection.dialect
    pooled = connection._dbapi_connection
    try:
        context = dialect.execution_ctx_cls._init_compiled(
            dialect,
            connection,
            pooled if pooled is not None else connection._revalidate_connection(),
            one.options,
            one.compiled,
            rows,
            one.statement,
            one.extracted,
            cache_hit=one.cache_hit,
            **one.given,
        )
    except (PendingRollbackError, ResourceClosedError):
        raise
    except BaseException as error:
        connection._handle_dbapi_exception(error, str(one.compiled), rows, None, None)
        raise
    return context


def execute_many(connection: Any, context: Any, cursor: Any) -> Any:
    """Execute a context by a cursor's `executemany`: events, log and errors are SQLAlchemy's.

    What the statement returns is for the cursor to keep.
    """
    context.execute_style = ExecuteStyle.EXECUTEMANY
    context._is_implicit_returning = False
    context.cursor = cursor
    return connection._execute_context(
        connection.dialect,
        lambda *_: context,
        context.compiled,
        context.parameters,
        context.execution_options,
    )


def wrap_driver(cursor: Any, wrap: Callable[[Any], Any]) -> Any:
    """Put something between SQLAlchemy's cursor for asyncpg and the driver's connection."""
    cursor._connection = wrap(cursor._connection)
    return cursor._connection


def driver_cursor(connection: Any, cursor: Any) -> Any:
    """Return psycopg's own cursor, which may be the one that SQLAlchemy has."""
    return cursor._cursor if connection.dialect.is_async else cursor


def returned_by(compiled: Any) -> Sequence[Any]:
    """Return the columns that a compiled update returns for its objects."""
    return tuple(compiled.effective_returning or ())


def is_expanded(compiled: Any) -> bool:
    """Tell whether a compiled statement is written anew for its values, as with IN."""
    return bool(compiled.literal_execute_params or compiled.post_compile_params)


def result_processor(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what turns the driver's value into a type's; raises where that depends on more."""
    return type_._cached_result_processor(dialect, None)


def rendered_binds(compiled: Any) -> Sequence[tuple[str, str, Any]]:
    """Return the parameters of a compiled statement, by name, as psycopg has it, and type.

    In the order in which asyncpg numbers them.
    """
    escaped = compiled.escaped_bind_names
    names = compiled.positiontup if compiled.positional else list(compiled.binds)
    return [(name, escaped.get(name, name), compiled.binds[name].type) for name in names]


def relationship_select(mapper: Any, prop: Any, remote: Any) -> tuple[Any, dict[str, Any]]:
    """Return a select of related objects with a column of theirs, and options to execute it with.

    To `do_orm_execute` it is a relationship load, as SQLAlchemy's own of one object is.
    """
    module: Any = context
    compiled = getattr(module, "_ORMCompileState", None) or module.ORMCompileState
    statement: Any = select(prop.entity, remote)
    path = mapper._path_registry[prop]
    statement._compile_options = compiled.default_compile_options + {"_current_path": path}
    if prop.order_by:
        statement = statement.order_by(*prop.order_by)
    load_options = context.QueryContext.default_load_options + {"_invoke_all_eagers": False}
    return statement, {"_sa_orm_load_options": load_options}


def is_eager_back(prop: Any) -> bool:
    """Tell whether related objects load those that they belong to in a way of their own."""
    return any(back.lazy != "select" for back in prop._reverse_property)
