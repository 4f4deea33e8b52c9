"""Operations on mapped classes: one that reads a page, and one that makes an object."""

from __future__ import annotations

import datetime
import decimal
import enum
import re
import uuid
from typing import Any

from sqlalchemy import Column, inspect
from sqlalchemy.orm import Mapper

_VALUES: dict[type, str] = {
    bool: "op.rng.random() < 0.5",
    int: "op.index",
    float: "op.rng.random()",
    bytes: "op.rng.randbytes(16)",
    decimal.Decimal: "Decimal(op.rng.randrange(100))",
    datetime.date: "date.today()",
    uuid.UUID: "uuid4()",
    dict: "{}",
    list: "[]",
}
_IMPORTS = {
    "Decimal(": ("decimal", "Decimal"),
    "date.today": ("datetime", "date"),
    "datetime.now": ("datetime", "datetime"),
    "timezone.utc": ("datetime", "timezone"),
    "uuid4(": ("uuid", "uuid4"),
}
_WIDTH = 100


def reading(cls: type, name: str) -> str:
    """Return an operation that reads a page of a class."""
    mapper: Mapper[Any] = inspect(cls)
    keys = [f"{name}.{mapper.get_property_by_column(c).key}" for c in mapper.primary_key]
    order = f".order_by({', '.join(keys)})" if keys else ""
    return (
        f'@workload.operation("read {name}", weight=3, kind="read")\n'
        f"async def read_{snake(name)}(session: AsyncSession) -> None:\n"
        f"    (await session.scalars(select({name}){order}.limit(20))).all()\n"
    )


def creating(cls: type, name: str) -> str | None:
    """Return an operation that makes an object of a class; None where that takes knowledge."""
    mapper: Mapper[Any] = inspect(cls)
    values: dict[str, str] = {}
    for column in mapper.local_table.columns if mapper.inherits is None else ():
        if column is mapper.polymorphic_on or column is mapper.version_id_col:
            continue  # SQLAlchemy's own business
        if not isinstance(column, Column) or not _is_required(column):
            continue
        key = mapper.get_property_by_column(column).key
        value = _value_of(column, f"{name}.{key}")
        if value is None:
            return None
        values[key] = value
    if mapper.inherits is not None or not _can_be_made(cls, values):
        return None
    given = [f"{key}={value}" for key, value in values.items()]
    add = f"    session.add({name}({', '.join(given)}))\n"
    if len(add) > _WIDTH:
        lines = "".join(f"            {one},\n" for one in given)
        add = f"    session.add(\n        {name}(\n{lines}        )\n    )\n"
    wants = "session: AsyncSession" + (", op: OperationContext" if "op." in add else "")
    return (
        f'@workload.operation("create {name}", weight=1, kind="write")\n'
        f"async def create_{snake(name)}({wants}) -> None:\n"
        f"{add}"
        f"    await session.commit()\n"
    )


def imports_of(text: str) -> list[tuple[str, str]]:
    """Return the modules and names that the values in a text need."""
    return [names for used, names in _IMPORTS.items() if used in text]


def snake(name: str) -> str:
    """Return a class's name as a function's."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _is_required(column: Column[Any]) -> bool:
    if column.nullable or column.default is not None or column.server_default is not None:
        return False
    table = column.table
    return column is not getattr(table, "autoincrement_column", None) and column.computed is None


def _value_of(column: Column[Any], attribute: str) -> str | None:
    """Return what makes a value of a column, another for each operation where it can be."""
    if column.foreign_keys:
        return None
    try:
        kind = column.type.python_type
    except NotImplementedError:
        return None
    if issubclass(kind, enum.Enum):
        return f"list({attribute}.type.enum_class)[0]"
    if kind is str:
        length = getattr(column.type, "length", None)
        return 'f"{op.index}"' if length and length < 20 else f'f"{column.key} {{op.index}}"'
    if kind is datetime.datetime:
        aware = getattr(column.type, "timezone", False)
        return "datetime.now(timezone.utc)" if aware else "datetime.now()"
    return _VALUES.get(kind)


def _can_be_made(cls: type, values: dict[str, str]) -> bool:
    """Whether the class takes these and no more: it may have a constructor of its own."""
    try:
        cls(**dict.fromkeys(values))
    except Exception:
        return False
    return True
