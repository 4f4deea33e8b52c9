"""
SQL expressions as values: `func.lower("X")` on one object, on the next one `func.lower("Y")`.

Expressions that differ only in their bound values share one statement: the values become columns
of the `unnest`. An allowlist again: an expression is understood when evaluating it for many rows
of one statement gives what one statement a row would give. That excludes whatever might read
tables, such as a SELECT or a function that nobody here knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, literal_column
from sqlalchemy.sql import elements, visitors
from sqlalchemy.sql.functions import FunctionElement

from .column_types import Codec, codec
from .names import Names

_ELEMENTS = (
    elements.BinaryExpression,
    elements.BindParameter,
    elements.Cast,
    elements.ClauseList,
    elements.False_,
    elements.Grouping,
    elements.Null,
    elements.True_,
    elements.TypeClause,
    elements.TypeCoerce,
    elements.UnaryExpression,
)

# fmt: off
_FUNCTIONS = frozenset((
    "abs", "array_length", "ascii", "btrim", "ceil", "ceiling", "char_length",
    "coalesce", "concat", "concat_ws", "current_date", "current_time", "current_timestamp",
    "current_user", "date", "date_part", "date_trunc", "decode", "encode", "exp", "floor",
    "format", "gen_random_uuid", "greatest", "initcap", "least", "left", "length", "ln",
    "localtime", "localtimestamp", "lower", "lpad", "ltrim", "make_date", "make_interval",
    "make_time", "make_timestamp", "make_timestamptz", "md5", "mod", "now", "nullif",
    "octet_length", "overlay", "position", "pow", "power", "random", "regexp_replace", "repeat",
    "replace", "reverse", "right", "round", "rpad", "rtrim", "session_user", "sha256", "sign",
    "split_part", "sqrt", "strpos", "substr", "substring", "to_char", "to_date", "to_hex",
    "to_number", "to_timestamp", "to_tsvector", "transaction_timestamp", "translate", "trim",
    "trunc", "upper", "user", "uuidv4",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class Template:
    """An expression without its values; `{0}` in `sql` stands for the first of them."""

    sql: str
    codecs: tuple[Codec, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """One value: what it has in common with others, and what it has not."""

    template: Template
    values: tuple[Any, ...]


def understood(value: Any, names: Names) -> Expression | None:
    """Return the expression, or None when only SQLAlchemy itself should send it."""
    clause = value.__clause_element__() if hasattr(value, "__clause_element__") else value
    if isinstance(clause, elements.BindParameter):
        return None  # SQLAlchemy sends it as a value, and leaves it on the object as it is
    binds = [one for one in visitors.iterate(clause) if isinstance(one, elements.BindParameter)]
    if not all(map(_is_known, visitors.iterate(clause))) or len(set(binds)) < len(binds):
        return None
    codecs = tuple(codec(bind.type, names.dialect) for bind in binds)
    known = tuple(way for way in codecs if way is not None and not way.foreign)
    if len(known) != len(codecs):
        return None
    sql = _text(clause, binds, names)
    return Expression(Template(sql, known), tuple(bind.effective_value for bind in binds))


def is_of_row(value: Any, table: Table) -> bool:
    """Tell whether an expression says of each row what it would in a statement of its own.

    It may read the row's own columns, and no others.
    """
    clause = value.__clause_element__() if hasattr(value, "__clause_element__") else value
    return all(
        table.c.contains_column(one) if isinstance(one, Column) else _is_known(one)
        for one in visitors.iterate(clause)
    )


def _is_known(element: Any) -> bool:
    if isinstance(element, elements.BindParameter):
        return not element.expanding
    if isinstance(element, FunctionElement):
        name = str(getattr(element, "name", "")).lower()
        return name in _FUNCTIONS and not getattr(element, "packagenames", ())
    return isinstance(element, _ELEMENTS)


def _text(clause: Any, binds: list[Any], names: Names) -> str:
    """Compile with a marker for each bound value."""
    markers = {id(bind): f"__value_{number}__" for number, bind in enumerate(binds)}

    def replace(element: Any, **_: Any) -> Any:
        marker = markers.get(id(element))
        return None if marker is None else literal_column(marker, type_=element.type)

    marked = visitors.replacement_traverse(clause, {}, replace)
    compiled: Any = marked.self_group().compile(
        dialect=names.dialect, schema_translate_map=names.translation or None
    )
    text = names.translated(str(compiled))
    text = text.replace("{", "{{").replace("}", "}}")
    for number in range(len(binds)):
        text = text.replace(f"__value_{number}__", f"{{{number}}}")
    return text
