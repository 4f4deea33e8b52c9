"""What a read gave, as plain values: two reads are the same when these are equal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import DeclarativeBase


def shown(found: Any, seen: set[int] | None = None) -> Any:
    """Objects by class, key, what is loaded of them and by which options; each once."""
    seen = set() if seen is None else seen
    if isinstance(found, DeclarativeBase):
        return _object(found, seen)
    if isinstance(found, dict):
        return [(key, shown(value, seen)) for key, value in sorted(found.items())]
    if isinstance(found, set | frozenset):
        return {"set": [shown(one, seen) for one in sorted(found, key=lambda one: one.id)]}
    if isinstance(found, list | tuple):
        return [shown(one, seen) for one in found]
    return found if found is None or isinstance(found, int | str | bool) else repr(found)


def _object(found: DeclarativeBase, seen: set[int]) -> Any:
    state: Any = inspect(found)
    name = f"{type(found).__name__}{state.identity}"
    if id(found) in seen:
        return name
    seen.add(id(found))
    loaded = {key: shown(value, seen) for key, value in sorted(state.dict.items()) if key[0] != "_"}
    path = [str(step) for step in state.load_path.path] if state.load_path else None
    return name, loaded, sorted(state.unloaded), path, len(state.load_options), state.expired
