"""
What is private to SQLAlchemy, outside of the insert path: an accessor each, read by its callers.

A new SQLAlchemy is read against this page and against `inserts/_sqlalchemy.py`. All of it is the
same in 2.0.40 to 2.1; what would replace each is said where there is something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Select
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.sql.base import ExecutableOption
from sqlalchemy.util import immutabledict

ConnectionRecord = _ConnectionRecord
"""What a pool keeps of a connection; `ConnectionPoolEntry` is its public face, without `close`."""

# --- what a statement is made of: there are public ways to add each, and none to ask for it -------


def clauses_of(select: Select[Any]) -> Mapping[str, Any]:
    """Return a select's clauses by their names in SQL, falsy where it has none."""
    return {
        "an ORDER BY": select._order_by_clauses,
        "a GROUP BY": select._group_by_clauses,
        "a HAVING": select._having_criteria,
        "a DISTINCT ON": select._distinct_on,
        "a DISTINCT": select._distinct,
        "a LIMIT or OFFSET": select._has_row_limiting_clause,
    }


def lock_of(statement: Any) -> Any:
    """Return the FOR UPDATE of a statement of any kind, None without one."""
    return getattr(statement, "_for_update_arg", None)


def without_lock(select: Select[Any]) -> Select[Any]:
    """Return a copy that locks no row."""
    copy = select.execution_options()
    copy._for_update_arg = None
    return copy


def is_cut(statement: Any) -> bool:
    """Return whether a statement of any kind has a LIMIT, OFFSET or FETCH."""
    return bool(getattr(statement, "_has_row_limiting_clause", False))


def distinct_on(statement: Any) -> Sequence[Any]:
    """Return what a statement of any kind is DISTINCT ON."""
    return getattr(statement, "_distinct_on", ())


def is_distinct(select: Select[Any]) -> bool:
    """Return whether a select is DISTINCT, as a whole."""
    return bool(select._distinct and not select._distinct_on)


def groups_of(select: Select[Any]) -> list[Any]:
    """Return what a select is grouped by."""
    return list(select._group_by_clauses)


def columns_of(select: Select[Any]) -> Sequence[Any]:
    """Return what is selected, as it was given: entities, columns."""
    return select._raw_columns


def parts_of_joins(select: Any) -> list[Any]:
    """Return the targets and conditions of `Select.join`, before they are resolved."""
    return [part for join in getattr(select, "_setup_joins", ()) for part in join]


def added_ctes(statement: Any) -> Iterable[Any]:
    """Return what `add_cte` has added."""
    return getattr(statement, "_independent_ctes", ())


def texts_around(statement: Any) -> list[str]:
    """Return the texts of prefixes, suffixes and hints."""
    around = [*getattr(statement, "_prefixes", ()), *getattr(statement, "_suffixes", ())]
    hints = [part[1] for part in getattr(statement, "_statement_hints", ())]
    return [*(str(part[0]) for part in around), *hints]


def with_condition(select: Select[Any], condition: Any) -> Select[Any]:
    """Return a copy with this condition in place of its own."""
    copy = select.execution_options()
    copy._where_criteria = (condition,)
    return copy


def with_only_options(
    select: Select[Any], kind: type[ExecutableOption], execution: Iterable[str]
) -> Select[Any]:
    """Return a copy with its options of one kind and these execution options, and no others."""
    copy = select.execution_options()
    copy._with_options = tuple(o for o in select._with_options if isinstance(o, kind))
    kept = set(execution) & select._execution_options.keys()
    copy._execution_options = immutabledict({n: select._execution_options[n] for n in kept})
    return copy


def annotations_of(element: Any) -> Mapping[str, Any]:
    """Return what the ORM notes on an element; `inspect` tells of mapped classes only."""
    found: Mapping[str, Any] = element._annotations
    return found


# --- pools ----------------------------------------------------------------------------------------


def dialect_of(pool: Pool) -> Dialect:
    """Return the dialect of a pool's engine."""
    dialect: Any = pool._dialect
    return dialect  # type: ignore[no-any-return]  # of a pool without an engine it is a stand-in


def pool_of_proxy(proxy: Any) -> Pool:
    """Return the pool of a connection that has been handed out (`PoolProxiedConnection`)."""
    pool: Pool = proxy._pool
    return pool


def pool_of_record(record: Any) -> Pool:
    """Return the pool of a connection record."""
    pool: Pool = record._ConnectionRecord__pool
    return pool


def overflow_of(pool: Pool) -> int:
    """Return how many connections a pool may open beside its size, -1 for any number."""
    return int(pool._max_overflow) if isinstance(pool, QueuePool) else -1


def creator_of(pool: Pool) -> Callable[[ConnectionPoolEntry], Any]:
    """Return what connects as a pool does, with all of its arguments."""
    return pool._invoke_creator


# --- what a session has still to flush ------------------------------------------------------------

Unflushed = tuple[Mapping[Any, Any], Mapping[Any, Any], Any]


def to_be_flushed(session: Session) -> Unflushed:
    """Return where a session keeps what it has to flush: also once nobody has the session."""
    return session._new, session._deleted, session.identity_map


def is_unflushed(kept: Unflushed) -> bool:
    """Return whether there is anything in it; what was set to what it is already is nothing."""
    new, deleted, identities = kept
    if new or deleted:
        return True
    dirty = identities._dirty_states()
    if not dirty:
        return False
    # Of a closed session some may be gone already.
    return any(_is_modified(one) for state in tuple(dirty) if (one := state.obj()) is not None)


def is_session_to_begin(value: object) -> bool:
    """Tell whether this is what `async_sessionmaker.begin()` returned, and nobody entered it."""
    # By its name: it is made anywhere, and it has no public one; it gets `trans` when entered.
    return type(value).__name__ == "_AsyncSessionContextManager" and not hasattr(value, "trans")


def _is_modified(instance: object) -> bool:
    try:
        # Its session is not asked, which may not be there any more.
        return Session.is_modified(None, instance)  # type: ignore[arg-type]
    except Exception:  # values are compared as their types have it, which may be anybody's code
        return True
