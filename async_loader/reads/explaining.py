"""Say which way the reads of a statement go, and why not faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Executable, Select, inspect
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from ..inserts.explaining import explain as explain_model
from . import _sqlalchemy as private
from .enable import SWITCH, is_switched_off
from .key_list import DRIVERS, element_type
from .selectin import is_installed, refusal
from .supported import why_not
from .targets import setting_of

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so


def explain(statement: Any, session: AsyncSession | Session | None = None) -> str:
    """Return a line for each thing of a SELECT that has a fast path, such as

    'selectin Parent.children: kept, = ANY' or 'selectin Parent.tags: stock: goes by a secondary
    table'. `kept` is a statement that is built once, `= ANY` and `IN` say how its keys go. Of a
    model or a Table it is `async_loader.inserts.explain`.

    Without a session the fast paths are taken to be on, and the database to be PostgreSQL through
    asyncpg; with one, both are as that session has them. A foreign key that is not loaded, which
    SQLAlchemy joins for, is seen when the rows are there and not here.
    """
    if not isinstance(statement, Executable):
        return explain_model(statement, session)
    if not isinstance(statement, Select):
        return "nothing to be faster: not a SELECT of the ORM"
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    dialect = sync_session.get_bind(clause=statement).dialect if sync_session else _DIALECT
    off = why_not("selectin") or (None if sync_session is None else _off(sync_session))
    lines = [
        f"selectin {name}: {f'stock: {off or reason}' if off or reason else _keys(loader, dialect)}"
        for name, loader, reason in _loads(statement, dialect)
    ]
    return "\n".join(lines) or "nothing to be faster: no selectinload"


def _off(session: Session) -> str | None:
    if is_switched_off():
        return f"{SWITCH}=off"
    setting = setting_of(session)
    if setting is None:
        return "fast paths are not on for this session"
    return None if setting.selectin and is_installed() else "selectin is off for this session"


def _keys(loader: Any, dialect: Any) -> str:
    info = private.query_info(loader)
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        return f"kept, IN: {dialect.name} through {dialect.driver}"
    if not info.zero_idx:
        return "kept, IN: several columns"
    type_: TypeEngine[Any] = info.in_expr.type
    return "kept, = ANY" if element_type(type_) is not None else f"kept, IN: keys are {type_!r}"


def _loads(statement: Select[Any], dialect: Any) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the name, loader and refusal of each selectinload, in the order of their loading."""
    state = private.compile_state(statement, dialect)
    entities = [found["entity"] for found in statement.column_descriptions if found.get("entity")]
    for entity in dict.fromkeys(entities):
        inspected: Any = inspect(entity)
        yield from _loads_of(state, inspected, private.path_of(inspected))


def _loads_of(state: Any, entity: Any, path: Any) -> Iterator[tuple[str, Any, str | None]]:
    for prop in entity.mapper.relationships:
        loadopt, strategy = private.strategy_of(prop, state, path)
        lazy = dict(strategy).get("lazy")
        if lazy not in {"selectin", "joined"} or (loadopt is None and prop in path.path):
            continue
        inner = private.entity_at(prop, state, path)
        depth = loadopt.local_opts.get("recursion_depth") if loadopt is not None else None
        if lazy == "selectin":
            loader = private.loader_of(prop, strategy)
            yield str(prop), loader, refusal(loader, inner, loadopt, depth)
        if depth is not None:
            continue  # the levels below are loaded by the same option
        yield from _loads_of(state, inner, path[prop][inner])
