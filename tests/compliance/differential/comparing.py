"""What a performance left behind, and how two of them are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Numbers(NamedTuple):
    """How far everything has counted."""

    calls: tuple[str, ...]
    counters: dict[str, int]
    sequences: tuple[tuple[str, int, bool], ...]  # name, value, whether it was drawn


@dataclass
class Observed:
    """What one side left behind."""

    steps: list[tuple[str, Any]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    rows: dict[str, list[str]] = field(default_factory=dict)
    sequences: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # After each step with an error: what defaults and sequences came to.
    numbers: dict[int, Numbers] = field(default_factory=dict)
    stock: dict[int, Numbers] = field(default_factory=dict)  # those of the run before
    ours: int = 0  # statements, not compared
    failed: bool = False
    mixed_up: bool = False  # an object has the key of another
    tied: bool = False  # two new objects had the same number: their order is that of a set
    jumped: bool = False  # an error left other numbers than stock's


class DifferenceError(AssertionError):
    """Stock and batched are not the same."""


def compare(stock: Observed, batched: Observed) -> None:
    """Raise DifferenceError for the first difference."""
    steps = zip(stock.steps, batched.steps, strict=False)
    for (line, one), (_, other) in steps:
        for key in one:
            if key == "error" and one[key] != other.get(key):
                both = f"stock   {one[key]}\n    batched {other.get(key)}"
                raise DifferenceError(f"after {line}: error\n    {both}")
            if one[key] != other.get(key):
                raise DifferenceError(f"after {line}: {_difference(key, one[key], other.get(key))}")
    for name in ("steps", "rows", "events", "calls", "sequences", "warnings"):
        one, other = getattr(stock, name), getattr(batched, name)
        if one != other:
            raise DifferenceError(_difference(name, one, other))


def _difference(name: str, stock: Any, batched: Any) -> str:
    """Go down to where they differ."""
    if isinstance(stock, dict) and isinstance(batched, dict):
        for key in [*stock, *(key for key in batched if key not in stock)]:
            if stock.get(key) != batched.get(key):
                return _difference(f"{name} {key}", stock.get(key), batched.get(key))
    if isinstance(stock, list) and isinstance(batched, list) and len(stock) == len(batched):
        for number, (one, other) in enumerate(zip(stock, batched, strict=True)):
            if one != other:
                return _difference(f"{name}[{number}]", one, other)
    if isinstance(stock, list) and isinstance(batched, list):
        for number, (one, other) in enumerate(zip(stock, batched, strict=False)):
            if one != other:
                name, stock, batched = f"{name}[{number}]", stock[number:], batched[number:]
                break
    return f"{name}\n    stock   {stock}\n    batched {batched}"
