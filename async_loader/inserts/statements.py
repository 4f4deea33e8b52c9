"""
The text of an insert: `INSERT ... SELECT ... FROM unnest(...)`, or of one row `INSERT ... VALUES`.

One array a column, so one prepared statement serves any number of rows and no limit on the
number of parameters applies. Where the server numbers the rows, they are sorted first: since
PostgreSQL 9.6 defaults are evaluated after the sort, which is what SQLAlchemy relies upon too.
A single row goes without arrays: no driver then guesses a type from its elements, and a long
value is not wrapped twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from .column_types import Codec
from .expressions import Template
from .names import Names
from .plans import ColumnPlan


class InsertText:
    """The insert of some columns into one table."""

    def __init__(self, names: Names, columns: Sequence[ColumnPlan], templates: Sequence[Template]):
        self.names = names
        self.codecs: list[Codec] = [column.codec for column in columns]
        self._plain = len(self.codecs)
        self._templates = templates
        for template in templates:
            self.codecs += template.codecs

    def rows(
        self, table: str, targets: Sequence[str], returning: Sequence[str], *, ordered: bool
    ) -> str:
        """Return the insert of any number of rows, in their order if it matters."""
        parameters = ", ".join(f"{parameter}[]" for parameter in self._parameters())
        aliases = ", ".join(f"c{number}" for number in range(len(self.codecs)))
        source = f"unnest({parameters}) "
        source += (
            f"WITH ORDINALITY AS u({aliases}, n) ORDER BY u.n" if ordered else f"AS u({aliases})"
        )
        values = [f"u.c{number}" for number in range(len(self.codecs))]
        selected = f"SELECT {', '.join(self._selected(values))} FROM {source}"
        return _returning(f"INSERT INTO {table} ({', '.join(targets)}) {selected}", returning)

    def row(self, table: str, targets: Sequence[str], returning: Sequence[str]) -> str:
        """Return the insert of one row, whose parameters are no arrays."""
        if not targets:
            return _returning(f"INSERT INTO {table} DEFAULT VALUES", returning)
        values = ", ".join(self._selected(self._parameters()))
        return _returning(
            f"INSERT INTO {table} ({', '.join(targets)}) VALUES ({values})", returning
        )

    def _parameters(self) -> list[str]:
        mark = "${}::{}" if self.names.dialect.driver == "asyncpg" else "%s::{1}"
        return [
            mark.format(number, codec.element_sql(self.names))
            for number, codec in enumerate(self.codecs, start=1)
        ]

    def _selected(self, values: Sequence[str]) -> list[str]:
        """Return what the columns are given, by way of the expressions if there are any."""
        cast = [
            value + codec.cast_sql(self.names)
            for value, codec in zip(values, self.codecs, strict=True)
        ]
        selected, first = cast[: self._plain], self._plain
        for template in self._templates:
            last = first + len(template.codecs)
            selected.append(template.sql.format(*cast[first:last]))
            first = last
        return selected


def _returning(sql: str, columns: Sequence[str]) -> str:
    return f"{sql} RETURNING {', '.join(columns)}" if columns else sql
