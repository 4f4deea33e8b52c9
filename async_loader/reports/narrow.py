"""Tables for terminals that are too narrow for them: a row below the other, nothing left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 10_000
_FOLDED = 10  # columns that a cell needs which may go on in the next line
_INDENT = "  "


def is_too_wide(table: Table, console: Console) -> bool:
    """Whether cells of a table would have to be cut off."""
    if not table.show_header:  # a label, with text that wraps
        return False
    unbounded = console.options.update(width=_WIDE)
    needed = Measurement.get(console, unbounded, table).maximum
    for column in table.columns:
        if not column.no_wrap:
            widest = max(_text(cell).cell_len for cell in (column.header, *column.cells))
            needed -= max(0, widest - (column.min_width or _FOLDED))
    return needed > console.width


def one_below_another(table: Table, width: int) -> Iterator[Text]:
    """Yield for each row its first cell, and below it the others with their headings."""
    headings = [_text(column.header) for column in table.columns]
    yield Text("")
    for row in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = map(_text, row)
        yield first
        line = Text(_INDENT)
        for heading, cell in zip(headings[1:], others, strict=True):
            item = Text(" ").join(part for part in (heading, cell) if part)
            if not item:
                continue
            if line.cell_len + item.cell_len > width and line.plain.strip():
                yield line
                line = Text(_INDENT)
            line = line + item + "  "
        yield line
    yield Text("")


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))
