"""Names as SQL: of tables and types, in the schema that `schema_translate_map` says."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection, Dialect

from ._sqlalchemy import render_translated, translating_preparer

Translation = dict[str | None, str | None]


class Names:
    """The names of one connection."""

    def __init__(self, dialect: Dialect, translation: Translation | None) -> None:
        self.dialect = dialect
        self.translation = translation
        self._asyncpg = dialect.driver == "asyncpg"
        self._preparer: Any = dialect.identifier_preparer
        if translation:
            self._preparer = translating_preparer(dialect, translation)

    @classmethod
    def of(cls, connection: Connection) -> Names:
        """Return the names as the connection's options have them."""
        options = connection.get_execution_options()
        return cls(connection.dialect, options.get("schema_translate_map"))

    def table(self, table: Table) -> str:
        """Return a table's name."""
        return self.translated(self._preparer.format_table(table))

    def plain(self, table: Table) -> str:
        """Return a table's name for a string, where `%` is not doubled."""
        return self._undoubled(self.table(table))

    def sequence(self, sequence: Any) -> str:
        """Return a sequence's name for a string."""
        return self._undoubled(self.translated(self._preparer.format_sequence(sequence)))

    def type(self, type_: Any) -> str:
        """Return the name of a type of the application's own, such as an enum."""
        return self.translated(self._preparer.format_type(type_))

    def translated(self, sql: str) -> str:
        """Put the schemas into SQL that SQLAlchemy compiled with the translation."""
        if not self.translation:
            return sql
        return render_translated(self._preparer, sql, self.translation)

    def escape(self, sql: str) -> str:
        """Return SQL without parameters as the driver wants it."""
        return sql if self._asyncpg else sql.replace("%", "%%")

    def _undoubled(self, name: str) -> str:
        """Undo the doubling of % that SQLAlchemy's quoting does for some drivers."""
        return name if self._asyncpg else name.replace("%%", "%")
