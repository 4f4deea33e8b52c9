"""
What in a database may move a key that no statement names: triggers, cascades, views, functions.

None of them has to. A statement that names one is what a chunk is counted before and behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sqlalchemy import Connection, text

_WRITES = re.compile(r"\b(insert|update|delete|merge|truncate|copy)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)  # what was found in a statement is kept for each
class Movers:
    """
    Names that a statement has in lower case, each with what it is.

    `written`: what moves keys when it is written to; `called`: functions; `deferred`: triggers
    that wait for the COMMIT, as SQL has their names.
    """

    written: Mapping[str, str] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)
    deferred: Sequence[str] = ()

    def in_statement(self, statement: str) -> str | None:
        """Return what a statement may move keys by, None if by nothing that is known."""
        if not self.written and not self.called:
            return None
        return _found(self, statement)


@lru_cache(maxsize=256)
def _found(movers: Movers, statement: str) -> str | None:
    words = set(_WORD.findall(statement.lower()))
    names = [movers.called, movers.written] if _WRITES.search(statement) else [movers.called]
    return next((what for known in names for name, what in known.items() if name in words), None)


_MOVERS = text(
    "WITH RECURSIVE keyed AS ("
    "  SELECT CAST(to_regclass(n) AS oid) AS oid FROM unnest(CAST(:names AS text[])) n"
    "), seen AS ("
    "  SELECT oid FROM keyed UNION SELECT r.ev_class FROM seen"
    "  JOIN pg_depend d ON d.refobjid = seen.oid AND d.classid = 'pg_rewrite'::regclass"
    "  JOIN pg_rewrite r ON r.oid = d.objid"
    ") "
    "SELECT 'called' AS kind, proname::text AS name, 'the function ' || proname AS what"
    " FROM pg_proc WHERE provolatile = 'v' AND prokind IN ('f', 'p')"
    " AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"
    " AND pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
    " UNION SELECT 'written', c.relname::text, 'the view ' || c.relname"
    " FROM seen JOIN pg_class c ON c.oid = seen.oid AND c.relkind = 'v'"
    " UNION SELECT 'written', c.relname::text, 'a trigger of ' || c.relname"
    " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
    " WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'"
    " UNION SELECT 'written', c.relname::text, 'a rule of ' || c.relname"
    " FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class"
    " WHERE r.ev_type <> '1' AND c.relnamespace <> 'pg_catalog'::regnamespace"
    " UNION SELECT 'written', c.relname::text, 'a cascade from ' || c.relname"
    " FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid"
    " WHERE f.contype = 'f' AND f.conrelid IN (SELECT oid FROM keyed)"
    " AND (f.confupdtype IN ('c', 'd', 'n') OR f.confdeltype IN ('d', 'n'))"
    " UNION SELECT 'deferred', quote_ident(n.nspname) || '.' || quote_ident(f.conname), ''"
    " FROM pg_constraint f JOIN pg_namespace n ON n.oid = f.connamespace"
    " WHERE f.contype = 't' AND f.condeferrable"
)


def movers_of(connection: Connection, names: Sequence[str]) -> Movers:
    """Return what may move the keys of the tables of these names, which are as SQL has them."""
    if connection.dialect.name != "postgresql":
        return Movers()
    rows = connection.execute(_MOVERS, {"names": list(names)}).all()
    found: dict[str, dict[str, str]] = {"written": {}, "called": {}, "deferred": {}}
    for kind, name, what in rows:
        if kind == "deferred":
            found[kind][name] = what
            continue
        # A name that is no word is known by its longest one.
        word = max(_WORD.findall(name.lower()), key=len, default="")
        found[kind].setdefault(word, what)
    return Movers(found["written"], found["called"], tuple(found["deferred"]))
