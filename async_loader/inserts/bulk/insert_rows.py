"""
Rows without objects, in the transaction of a session or connection.

What inserts them is imported at the first call: the name alone costs an application nothing.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Literal, overload

from sqlalchemy import Table

from ...errors import ConfigurationError
from .counts import RowCount, Upserted
from .given import AnyAsyncSession, AnySession, Changes, Progress, Rows


@overload
def insert_rows(
    session: AnyAsyncSession,
    model: type[Any] | Table,
    rows: Rows,
    *,
    progress: Progress | None = None,
) -> Coroutine[Any, Any, int]: ...


@overload
def insert_rows(
    session: AnySession,
    model: type[Any] | Table,
    rows: Rows,
    *,
    progress: Progress | None = None,
) -> RowCount: ...


@overload
def insert_rows(
    session: AnyAsyncSession,
    model: type[Any] | Table,
    rows: Rows,
    *,
    on_conflict: Literal["update", "nothing"],
    key: Any = None,
    set: Changes | None = None,
    returning: Sequence[Any] | None = None,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: Progress | None = None,
) -> Coroutine[Any, Any, Upserted]: ...


@overload
def insert_rows(
    session: AnySession,
    model: type[Any] | Table,
    rows: Rows,
    *,
    on_conflict: Literal["update", "nothing"],
    key: Any = None,
    set: Changes | None = None,
    returning: Sequence[Any] | None = None,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: Progress | None = None,
) -> Upserted: ...


def insert_rows(
    session: Any,
    model: type[Any] | Table,
    rows: Rows,
    *,
    on_conflict: Literal["update", "nothing"] | None = None,
    key: Any = None,
    set: Changes | None = None,  # noqa: A002  # SQL's word
    returning: Sequence[Any] | None = None,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: Progress | None = None,
) -> Any:
    """Insert rows of a mapped class or a Table and return how many; await it if async.

    `session` is a session or connection, of asyncio or not, or a scoped session. `rows` is an
    iterable, or with asyncio an async iterable, of dicts by attribute name (of a Table: by
    column key), of tuples in the order of the table's columns, with or without the key that the
    server makes, or of objects that are in no session and have no related ones.

    What is stored is what `session.execute(insert(model), rows)` stores, in the order of the
    rows: Python defaults, types and server defaults are applied, and None is the same as
    nothing for a mapped class, NULL for a Table. No object is made or changed, no event fires,
    nothing is read back. Rows go in by COPY where that comes to the same, else by SQLAlchemy's
    INSERT in pages; `explain` says which. Memory is bounded whatever the number of rows.
    `progress` is called with the number of rows read so far, once a chunk of up to 50,000.

    With `on_conflict`, a row whose `key` (attributes of a unique index) is there is left alone
    ("nothing") or changes the row of that key ("update"): in all that it gives but keys, or in
    `set`, names of attributes. Rows that come out the same to the last bit are not written. A
    dict in `set` gives values and SQL instead, which every row of a known key gets. Two rows of
    one key are refused, or the last one wins (`duplicates="last"`). The result is then an
    `Upserted`: rows inserted, updated and unchanged, and of the first two what `returning` names,
    in no order.

    Pending objects are flushed first when the session autoflushes. After an error nothing of
    the call remains, be it the database's, of a row or of the iterable; the transaction may have
    to be rolled back, as after any statement that failed. In AUTOCOMMIT all rows are committed
    or none. Raises ConfigurationError for what it does not take, and SQLAlchemy's errors for
    those of types, defaults and the database.
    """
    from .calling import perform  # noqa: PLC0415  who imports the name may not call it
    from .inserting import insert, upsert_as_said  # noqa: PLC0415  as above

    if on_conflict is None:
        if (key, set, returning, duplicates) != (None, None, None, "refuse"):
            raise ConfigurationError("key=, set=, returning= and duplicates= go with on_conflict=")
        return perform("insert_rows", session, model, partial(insert, rows, progress))
    work = partial(
        upsert_as_said,
        rows,
        progress,
        action=on_conflict,
        key=key,
        changes=set,
        returning=returning,
        duplicates=duplicates,
    )
    return perform("insert_rows", session, model, work)
