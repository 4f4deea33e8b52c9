"""
Rows of a file for operations: CSV with a header, or JSON Lines.

Which row an operation gets depends on its number: the row of that number, or one drawn by the
seed. `unique` rows alone depend on who asked before, as each is given out once, in the order of
the file; the parts of a split run take every nth.
"""

from __future__ import annotations

import csv
import json
import sys
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, overload

from ..errors import ConfigurationError
from .context import OperationContext, hash64

Order = Literal["sequential", "random", "unique"]
Exhausted = Literal["again", "end", "error"]

_FORMS = (".csv", ".tsv", ".jsonl", ".ndjson")


class FeedExhausted(Exception):  # noqa: N818  what it is called in a report's errors
    """A feed has no row for an operation, and that is to be its error."""


class FeedEnded(BaseException):
    """A feed has no row for an operation, and that is to be the end of the run."""


class Row(dict[str, Any]):
    """One row: its values by column."""

    def __missing__(self, column: str) -> Any:
        raise KeyError(f"there is no column {column!r}: there are {', '.join(self)}")


class Feed(Sequence[Row]):
    """The rows of a file; `row(op)` is an operation's. As a sequence it is all of them."""

    def __init__(self, name: str, rows: Sequence[Row], order: Order, exhausted: Exhausted) -> None:
        self.name = name
        self._rows = rows
        self._order = order
        self._exhausted = exhausted
        self._stream = crc32(name.encode())  # feeds of one run are drawn from independently

    def row(self, op: OperationContext) -> Row:
        """Return the operation's row, the same however often it asks."""
        number, size = op.index, len(self._rows)
        if self._order == "random":
            number = hash64(hash64(self._stream, op.seed), op.index) % size
        elif self._order == "unique":
            number = op.claims.number_for(self, op.index)
        if number < size and number >= 0:
            return self._rows[number]
        if self._exhausted == "again" or number < 0:  # of a warm-up, from the end backwards
            return self._rows[number % size]
        what = f"{self.name} is exhausted: it has {size:,} rows"
        raise FeedEnded(what) if self._exhausted == "end" else FeedExhausted(what)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @overload
    def __getitem__(self, number: int) -> Row: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Row]: ...
    def __getitem__(self, number: int | slice) -> Row | Sequence[Row]:
        return self._rows[number]

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def feed(
    path: str | Path,
    *,
    order: Order = "sequential",
    exhausted: Exhausted | None = None,
    types: Mapping[str, Callable[[str], Any]] | None = None,
) -> Feed:
    """
    Read the rows of a CSV file with a header, or of JSON Lines, and keep them in memory.

    A relative path is beside the file that calls this. Operation i gets row i ("sequential"), a
    row drawn by (seed, i) ("random"), or one that no other operation gets ("unique"). After the
    last row it begins `again` ("sequential" unless said otherwise), the run is over (`end`,
    "unique" unless said otherwise), or the operation fails (`error`).

    `types` names columns that there must be, and what makes their values of text: `{"id": int}`.
    Raises `ConfigurationError`, one line with the file's line, for a file that is none of it.
    """
    if order not in get_args(Order):
        raise ConfigurationError(f"feed: order is one of {_listed(Order)}, not {order!r}")
    if exhausted not in (None, *get_args(Exhausted)):
        raise ConfigurationError(
            f"feed: exhausted is one of {_listed(Exhausted)}, not {exhausted!r}"
        )
    if order == "random" and exhausted is not None:
        raise ConfigurationError("feed: rows drawn at random are never exhausted")
    if order == "unique" and exhausted == "again":
        raise ConfigurationError("feed: rows are not unique where the file begins again")
    file = Path(path)
    if not file.is_absolute():
        file = _folder_of_the_caller() / file
    rows = _read(file, types or {})
    return Feed(file.name, rows, order, exhausted or ("end" if order == "unique" else "again"))


def _listed(choice: Any) -> str:
    return ", ".join(map(repr, get_args(choice)))


def _folder_of_the_caller() -> Path:
    """Return where the module is that calls `feed`; the current folder where it is no file."""
    caller = sys._getframe(2)
    file = caller.f_globals.get("__file__")
    return Path(file).resolve().parent if isinstance(file, str) else Path.cwd()


def _read(file: Path, types: Mapping[str, Callable[[str], Any]]) -> list[Row]:
    if file.suffix not in _FORMS:
        raise ConfigurationError(f"feed: {file.name} is none of {', '.join(_FORMS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            read = _csv(file, lines) if file.suffix in _FORMS[:2] else _json_lines(file, lines)
            rows = [_typed(row, types, f"{file.name}:{line}") for line, row in read]
    except FileNotFoundError:
        raise ConfigurationError(f"feed: there is no file {file}") from None
    except OSError as error:
        raise ConfigurationError(f"feed: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"feed: {file.name} is not UTF-8") from error
    if not rows:
        raise ConfigurationError(f"feed: {file.name} has no rows")
    return rows


def _csv(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    columns: list[str] | None = None
    try:
        for values in reader:
            if not values:
                continue  # a blank line
            if columns is None:
                columns = values
                if twice := [name for name in columns if columns.count(name) > 1]:
                    raise ConfigurationError(f"feed: {file.name} has two columns {twice[0]!r}")
                continue
            if len(values) != len(columns):
                raise ConfigurationError(
                    f"feed: {file.name}:{reader.line_num} has {len(values)} values for "
                    f"{len(columns)} columns"
                )
            yield reader.line_num, Row(zip(columns, values, strict=True))
    except csv.Error as error:
        raise ConfigurationError(f"feed: {file.name}:{reader.line_num}: {error}") from None


def _json_lines(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            raise ConfigurationError(f"feed: {file.name}:{number} is no JSON") from None
        if not isinstance(value, dict):
            raise ConfigurationError(f"feed: {file.name}:{number} is no object")
        yield number, Row(value)


def _typed(row: Row, types: Mapping[str, Callable[[str], Any]], where: str) -> Row:
    for column, kind in types.items():
        if column not in row:
            raise ConfigurationError(
                f"feed: {where} has no column {column!r}: there are {', '.join(row)}"
            )
        try:
            row[column] = kind(row[column])
        except Exception:
            raise ConfigurationError(
                f"feed: {where}: {column} is no {getattr(kind, '__name__', kind)}"
            ) from None
    return row
