"""
Which keys of a chunk's range this transaction has moved, whatever others write meanwhile.

A cursor keeps what there was: declared before the first statement that may move rows, it is read
behind the last one, and yields the rows as they were. A row whose key is gone then was deleted,
or updated: the server follows it to where it is (`currtid2`). Of others' rows none is counted:
what is visible here and not yet committed is this transaction's, or one of its savepoints'.

Limits: a key that is spread over several tables is not looked at. An update that takes a row to
another partition is a DELETE and an INSERT to the server, and passes as these. As many rows may
come into the range as this transaction has inserted into the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from typing import cast as cast_

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, func, literal_column, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.visitors import InternalTraversal

from .keyset import Keyset

_CURSOR = "async_loader_keys"
_PLACE = re.compile(r"(\d+)(\(.*\))")  # a table's oid, and a row's place in it


class CursorLostError(Exception):
    """Our cursor was closed, by what nobody has seen."""


class _Declare(Executable, ClauseElement):
    """DECLARE a cursor for a select."""

    inherit_cache = True
    _traverse_internals = [("select", InternalTraversal.dp_clauseelement)]  # noqa: RUF012

    def __init__(self, select: Select[Any]) -> None:
        self.select = select


@compiles(_Declare)
def _declare(element: _Declare, compiler: Any, **options: Any) -> str:
    select = compiler.process(element.select, **options)
    return f"DECLARE {_CURSOR} NO SCROLL CURSOR WITHOUT HOLD FOR {select}"


class KeySnapshot:
    """The keys of a range as they were at first."""

    def __init__(self, keyset: Keyset, span: tuple[str | None, str | None]) -> None:
        self._keyset, self._span = keyset, span
        self._table = keyset.tables[0].quoted if keyset.tables else ""
        self._inserted = 0
        self._taken = self._in_doubt = False

    @cached_property
    def _query(self) -> Select[Any] | None:
        """Made where it is needed: to make it for each chunk costs more than to lock its row."""
        query = self._keyset.base_count(*self._span)
        return None if query is None else _keys(self._keyset, query)

    def take(self, connection: Connection) -> None:
        """Keep what there is, unless that is done."""
        if self._query is None or (self._taken and self._is_there(connection)):
            return
        self._inserted = self._inserts(connection)
        options = self._query.get_execution_options()
        connection.execute(_Declare(self._query), execution_options=options)
        self._taken = True

    def rolled_back(self) -> None:
        """Note that a savepoint was rolled back: its cursors are gone with it, and all it did."""
        self._in_doubt = self._taken

    def is_moved(self, connection: Connection) -> bool:
        """
        Return whether this transaction has moved rows out of the range, or into it.

        Raises `CursorLostError` where that cannot be known.
        """
        if not self._taken or self._query is None:
            return False
        in_doubt = self._in_doubt
        if not self._ask(connection):  # a FETCH that failed would stay prepared, without columns
            if in_doubt:
                return False
            raise CursorLostError
        was = _by_key(connection.exec_driver_sql(f"FETCH ALL FROM {_CURSOR}").one())
        now = _by_key(connection.execute(self._query).one())
        if was.keys() == now.keys():
            return False
        gone = [was[key] for key in was.keys() - now.keys()]
        new = {now[key] for key in now.keys() - was.keys()}
        followed = self._follow(connection, gone)
        left = followed - set(now.values())
        arrived = new - followed
        ours = self._ours(connection, [*left, *arrived])
        if left & ours:
            return True
        came = len(arrived & ours)
        return bool(came) and came > self._inserts(connection) - self._inserted

    def _is_there(self, connection: Connection) -> bool:
        return self._ask(connection) if self._in_doubt else self._taken

    def _ask(self, connection: Connection) -> bool:
        self._taken = bool(connection.scalar(_THERE, {"name": _CURSOR}))
        self._in_doubt = False
        return self._taken

    def _inserts(self, connection: Connection) -> int:
        return int(connection.scalar(_INSERTED, {"name": self._table}) or 0)

    def _follow(self, connection: Connection, places: Sequence[str]) -> set[str]:
        """Return where rows are that were updated, and so were elsewhere at first."""
        if not places:
            return set()
        oids, tids = _split(places)
        rows = connection.execute(_FOLLOWED, {"oids": oids, "tids": tids})
        return {place for (place,) in rows}

    def _ours(self, connection: Connection, places: Sequence[str]) -> set[str]:
        """Return those of rows that this transaction has written."""
        if not places:
            return set()
        query = text(_OURS.format(table=self._table.replace(":", r"\:")))
        rows = connection.execute(query, {"tids": sorted(set(_split(places)[1]))})
        return {place for (place,) in rows}


def _keys(keyset: Keyset, count: Select[Any]) -> Select[Any]:
    """Return the select of a range's keys and places, of all of them in one row."""
    table = keyset.tables[0].table
    key = cast(func.row(*(table.c[element.key] for element in keyset.elements)), Text)
    place: ColumnElement[str] = literal_column("tableoid::text || ctid::text")
    keys: Any = count.with_only_columns(func.array_agg(key), func.array_agg(place))
    return cast_(Select[Any], keys)


def _by_key(row: Any) -> dict[str, str]:
    keys, places = row
    return dict(zip(keys or (), places or (), strict=True))


def _split(places: Sequence[str]) -> tuple[list[str], list[str]]:
    parts = [match.groups() for match in map(_PLACE.fullmatch, places) if match is not None]
    return [oid for oid, _ in parts], [tid for _, tid in parts]


_THERE = text("SELECT EXISTS (SELECT FROM pg_cursors WHERE name = :name)")
_INSERTED = text(
    "SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(t.relid)), 0)::bigint FROM (SELECT relid"
    " FROM pg_partition_tree(to_regclass(:name)) UNION SELECT to_regclass(:name)) t"
)
# A partition's own privileges need not be those of its table: it is not followed then.
_FOLLOWED = text(
    "SELECT o || tid FROM (SELECT o, t, CASE WHEN has_table_privilege(o::oid, 'SELECT')"
    "  THEN currtid2(o::oid::regclass::text, t::tid)::text ELSE t END AS tid"
    " FROM unnest(CAST(:oids AS text[]), CAST(:tids AS text[])) AS p (o, t)) f WHERE tid <> t"
)
# A row has 32 bits of a transaction's number; what was not over when the statement began is ours,
# else we would not see it.
_OURS = (
    "SELECT place FROM (SELECT tableoid::text || ctid::text AS place,"
    "  m + 1048576 - ((m + 1048576 - xmin::text::bigint) & 4294967295) AS x, m"
    " FROM {table}, txid_snapshot_xmax(txid_current_snapshot()) m"
    " WHERE ctid = ANY (CAST(CAST(:tids AS text[]) AS tid[]))) r"
    " WHERE CASE WHEN x >= m THEN true ELSE coalesce(txid_status(x) = 'in progress', false) END"
)
