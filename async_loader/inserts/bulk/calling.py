"""A call of this room: its session or connection, of asyncio or not, and the target of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Executable, insert
from sqlalchemy.engine import Connection, CursorResult, Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from ...errors import ConfigurationError
from .._sqlalchemy import autoflush, raise_as_statement
from ..plans import DRIVERS
from .catalogue import sql_name
from .given import a_kind
from .target import Target, target_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """Where rows go: `session` is None of a connection; `options` are for each statement."""

    name: str
    session: Session | None
    connection: Connection
    target: Target
    options: Mapping[str, Any]

    def require_one_table(self) -> None:
        """Raise ConfigurationError for a class whose rows lie in several tables."""
        if not self.target.is_one_table:
            raise ConfigurationError(
                f"{self.name} cannot take {self.target.name}: its rows lie in several tables"
            )

    @property
    def dialect(self) -> Dialect:
        return self.connection.dialect

    @property
    def table_name(self) -> str:
        """The quoted name of the target's table, in the schema that holds."""
        return sql_name(self.target.table, self.translation)

    @contextmanager
    def errors_of(self, what: str) -> Iterator[None]:
        """Raise what defaults and types raise as SQLAlchemy does."""
        try:
            yield
        except Exception as error:
            raise_as_statement(self.connection, error, f"{what} {self.table_name}")

    def execute(self, statement: Executable) -> CursorResult[Any]:
        """Execute a statement with the options of the session."""
        return self.connection.execute(statement, execution_options=self.options)

    @property
    def translation(self) -> Mapping[Any, Any] | None:
        """The `schema_translate_map` that holds."""
        both = {**self.connection.get_execution_options(), **self.options}
        found: Mapping[Any, Any] | None = both.get("schema_translate_map")
        return found


def perform(name: str, given: Any, model: Any, work: Callable[[Call], T]) -> Any:
    """
    Do the work of a call: at once in a sync session, else in a coroutine that gives its result.

    Raises ConfigurationError for what is no session, no model, or not PostgreSQL's.
    """
    if isinstance(given, async_scoped_session | scoped_session):
        given = given()
    if isinstance(given, AsyncSession | AsyncConnection):
        return _in_greenlet(given, name, model, work)
    if not isinstance(given, Session | Connection):
        raise ConfigurationError(f"{name} takes a session or a connection, not {a_kind(given)}")
    if not in_greenlet() and _dialect(given, target_of(model, name)).is_async:
        return greenlet_spawn(_perform, given, name, model, work)
    return _perform(given, name, model, work)


async def _in_greenlet(given: Any, name: str, model: Any, work: Callable[[Call], T]) -> T:
    done: T = await given.run_sync(_perform, name, model, work)
    return done


def _perform(given: Session | Connection, name: str, model: Any, work: Callable[[Call], T]) -> T:
    target = target_of(model, name)
    dialect = _dialect(given, target)
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise ConfigurationError(
            f"{name} needs PostgreSQL through asyncpg or psycopg, not "
            f"{dialect.name}+{dialect.driver}"
        )
    if isinstance(given, Connection):
        return work(Call(name, None, given, target, {}))
    autoflush(given)
    connection = given.connection(bind_arguments=_bind_arguments(target))
    translation = getattr(given, "execution_options", {}).get("schema_translate_map")
    options = {} if translation is None else {"schema_translate_map": translation}
    return work(Call(name, given, connection, target, options))


def _dialect(given: Session | Connection, target: Target) -> Any:
    if isinstance(given, Connection):
        return given.dialect
    return given.get_bind(**_bind_arguments(target)).dialect


def _bind_arguments(target: Target) -> dict[str, Any]:
    """What `execute` would tell a session that chooses its engine."""
    arguments = {"clause": insert(target.model)}
    return arguments if target.mapper is None else {"mapper": target.mapper, **arguments}
