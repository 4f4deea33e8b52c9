"""Rows that are changed or deleted by a key, without objects."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any, Literal, overload

from sqlalchemy import Table

from .counts import Deleted, Updated
from .given import AnyAsyncSession, AnySession, Keys, Progress, Rows


@overload
def update_rows(
    session: AnyAsyncSession,
    model: type[Any] | Table,
    rows: Rows,
    *,
    key: Any = None,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: Progress | None = None,
) -> Coroutine[Any, Any, Updated]: ...


@overload
def update_rows(
    session: AnySession,
    model: type[Any] | Table,
    rows: Rows,
    *,
    key: Any = None,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: Progress | None = None,
) -> Updated: ...


def update_rows(
    session: Any,
    model: type[Any] | Table,
    rows: Rows,
    *,
    key: Any = None,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: Progress | None = None,
) -> Any:
    """Change rows by their key, as `session.execute(update(model), rows)` does; await if async.

    `rows` are as `insert_rows` takes them: each names the `key` (attributes of a unique index;
    None: the primary key) and what it changes; None is NULL, and JSON's null where the type has
    it so. A key with NULL in it is nobody's. Of a class with a version counter the row's version
    goes up, and a row that names the version changes the row of that version
    only. `onupdate` is applied to rows that change. Rows that are the same to the last bit are
    not written. Objects in a session are not refreshed, and locks are taken in no order.

    All rows are changed or none: see `insert_rows`. Keys that are not there are counted, not
    refused. Raises ConfigurationError for a key that is not unique in the table, or comes twice.
    """
    from .calling import perform  # noqa: PLC0415  who imports the name may not call it
    from .changing import update  # noqa: PLC0415  as above

    work = partial(update, rows, progress, key=key, duplicates=duplicates)
    return perform("update_rows", session, model, work)


@overload
def delete_rows(
    session: AnyAsyncSession,
    model: type[Any] | Table,
    keys: Keys,
    *,
    key: Any = None,
    progress: Progress | None = None,
) -> Coroutine[Any, Any, Deleted]: ...


@overload
def delete_rows(
    session: AnySession,
    model: type[Any] | Table,
    keys: Keys,
    *,
    key: Any = None,
    progress: Progress | None = None,
) -> Deleted: ...


def delete_rows(
    session: Any,
    model: type[Any] | Table,
    keys: Keys,
    *,
    key: Any = None,
    progress: Progress | None = None,
) -> Any:
    """Delete the rows of some keys, as `delete(model)` does; await it if async.

    `keys` are values, or tuples and dicts of several columns, of the `key` (attributes of a
    unique index; None: the primary key). All are deleted or none; no relationship cascades but
    the database's own. Raises ConfigurationError for a key that is not unique in the table.
    """
    from .calling import perform  # noqa: PLC0415  who imports the name may not call it
    from .changing import delete_by_key  # noqa: PLC0415  as above

    return perform("delete_rows", session, model, partial(delete_by_key, keys, progress, key=key))
