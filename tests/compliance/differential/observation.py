"""What is seen of objects, errors, rows and events, in a form that two runs can be compared by."""

from __future__ import annotations

import re
import uuid
from array import array
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from itertools import groupby
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.sql import ClauseElement

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_RECENT = re.compile(r"20[2-9]\d-\d\d-\d\d[ T][\d:.]+(?:[+-]\d\d(?::\d\d)?)?")
_PREFIX = re.compile(r"\bx\d+_")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Lens:
    """Knows objects by their names, and hides what is another value at each run."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self._random: dict[str, str] = {}
        self._seen = 0  # names in the namespace when the objects were looked for
        self._objects: list[tuple[str, Any]] = []
        self._names: dict[int, str] = {}  # by identity; the namespace keeps them alive

    def objects(self) -> list[tuple[str, Any]]:
        """Return the mapped objects that a script has made, by name."""
        if len(self.namespace) != self._seen:  # a script gives each its name once
            self._seen = len(self.namespace)
            self._objects = [
                (name, value)
                for name, value in self.namespace.items()
                if name[0] == "o" and name[1:].isdigit()
            ]
            # The first name of an object that has two.
            self._names = {id(value): name for name, value in reversed(self._objects)}
        return self._objects

    def name(self, wanted: object) -> str:
        """Return the name of an object."""
        self.objects()
        return self._names.get(id(wanted)) or f"another {type(wanted).__name__}"

    def show(self, value: Any) -> str:
        """Return a value as text."""
        if value is None or isinstance(value, int | str | uuid.UUID):
            return self.mask(repr(value))
        if isinstance(value, list | tuple | set | frozenset | dict):
            return f"{type(value).__name__}({', '.join(self._items(value))})"
        if hasattr(value, "_sa_instance_state"):
            return self.name(value)
        if isinstance(value, date) and value.year > 2019:
            return "<now>"
        if isinstance(value, memoryview | array):
            return f"{type(value).__name__} {bytes(value)!r}"
        is_sql = isinstance(value, ClauseElement)
        return f"SQL {type(value).__name__}" if is_sql else _ADDRESS.sub("0x", repr(value))

    def _items(self, value: Any) -> list[str]:
        if isinstance(value, dict):
            return [f"{self.show(key)}: {self.show(one)}" for key, one in value.items()]
        shown = [self.show(one) for one in value]
        return sorted(shown) if isinstance(value, set | frozenset) else shown

    def mask(self, text: str) -> str:
        """Replace recent times, and random keys by the order in which they were seen."""
        text = _without_times(text)
        return _UUID.sub(self._masked, text) if "-" in text else text

    def _masked(self, match: re.Match[str]) -> str:
        found = match.group()
        return found if found[14] == "0" else self._random.get(found, "<random>")

    def learn(self) -> None:
        """Name the random values of objects after them."""
        for name, value in self.objects():
            for key, one in value.__dict__.items():
                if type(one) is uuid.UUID and one.version == 4:
                    self._random.setdefault(str(one), f"<{key} of {name}>")

    def states(self) -> dict[str, Any]:
        """Return all that can be seen of all objects without a statement."""
        self.learn()
        return {name: self._state(value) for name, value in self.objects()}

    def _state(self, one: Any) -> dict[str, Any]:
        state: Any = instance_state(one)
        status = ("transient", "pending", "persistent", "deleted", "detached")
        mapper = state.mapper
        return {
            "is": [name for name in status if getattr(state, name)],
            "loaded": {
                key: self.show(value)
                for key, value in sorted(state.dict.items())
                if key in mapper.attrs
            },
            "expired": sorted(state.expired_attributes),
            "is expired": bool(state.expired),
            "modified": bool(state.modified),
            "is kept": state._strong_obj is not None,
            "committed": {
                key: "<none>" if value is NO_VALUE else self.show(value)
                for key, value in sorted(state.committed_state.items())
            },
            "identity": state.key and (state.key[0].__name__, self.show(state.key[1])),
            "token": state.identity_token,
            "callables": sorted(state.callables),
            "last known": sorted(state._last_known_values or ()),
            "pending mutations": sorted(state.__dict__.get("_pending_mutations", ())),
            # Without a change it says no more than `loaded`, and takes longest.
            "history": {
                key: self._history(state.attrs[key]) for key in sorted(state.committed_state)
            },
        }

    def _history(self, attribute: Any) -> str:
        try:
            # A set's is in no order.
            return str([sorted(map(self.show, part or ())) for part in attribute.history])
        except Exception as error:
            return f"raises {type(error).__name__}"

    def session(self, session: Session) -> dict[str, Any]:
        """Return what a session says of itself."""
        return {
            "active": session.is_active,
            "new": sorted(map(self.name, session.new)),
            "dirty": sorted(map(self.name, session.dirty)),
            "deleted": sorted(map(self.name, session.deleted)),
            "known": sorted(map(self.name, session.identity_map.values())),
            "nested": session.in_nested_transaction(),
        }


@lru_cache(maxsize=10_000)
def _without_times(text: str) -> str:
    return _PREFIX.sub("@", _RECENT.sub("<now>", _ADDRESS.sub("0x", text)))


def described(error: BaseException) -> list[str]:
    """Return what a caller can tell an error by."""
    if isinstance(error, StatementError):
        orig: Any = error.orig
        found = [type(error).__name__, type(orig).__name__]
        if isinstance(error, DBAPIError):
            cause = getattr(orig, "__cause__", None)
            diagnostic = getattr(orig, "diag", cause)
            found.append(str(getattr(orig, "sqlstate", None)))
            found.append(_PREFIX.sub("@", str(getattr(diagnostic, "constraint_name", None))))
            found.append(f"invalidated {error.connection_invalidated}")
        return found
    if isinstance(error, RecursionError):  # its words tell where the stack ended, by chance
        return [type(error).__name__]
    words = _PREFIX.sub("@", _ADDRESS.sub("0x", str(error).split("\n")[0].split(" (")[0]))
    return [type(error).__name__, words[:80]]


_LIFE = (
    "transient_to_pending",
    "pending_to_transient",
    "pending_to_persistent",
    "persistent_to_transient",
    "persistent_to_deleted",
    "deleted_to_detached",
    "persistent_to_detached",
    "deleted_to_persistent",
    "detached_to_persistent",
    "loaded_as_persistent",
    "before_attach",
    "after_attach",
)


# Told for each of a set of objects.
_UNORDERED = {*_LIFE, "expire"}


def listen(kind: str, session: Session, classes: Iterable[type], lens: Lens) -> list[Any]:
    """Have events of a kind logged; return the log."""
    log: list[Any] = []
    if kind in {"session", "flush"}:
        _listen_to_flush(session, lens, log)
    if kind == "session":
        for name in _LIFE:
            event.listen(
                session, name, lambda _, o, name=name: log.append(f"{name} {_seen(lens, o)}")
            )
    roots = [cls for cls in classes if len(cls.__mro__) > 2 and inspect(cls).inherits is None]
    if kind in {"update", "insert"}:
        names = ["before_update", "after_update", "before_delete", "after_delete"]
        names += ["before_insert", "after_insert"] if kind == "insert" else []
        for cls in roots:
            for name in names:
                event.listen(
                    cls,
                    name,
                    lambda _m, _c, o, name=name: log.append(f"{name} {_seen(lens, o)}"),
                    propagate=True,
                )
    if kind == "attributes":
        for cls in classes:
            _listen_to_attributes(cls, lens, log)
    return log


def in_order(log: list[Any]) -> list[Any]:
    """Sort what SQLAlchemy itself tells in no order: a flush's new objects, from a set."""
    found: list[Any] = []
    for unordered, group in groupby(log, key=lambda one: str(one).split(" ")[0] in _UNORDERED):
        same = list(group)
        found += sorted(same) if unordered else same
    return found


def _seen(lens: Lens, one: Any) -> str:
    state: Any = instance_state(one)
    loaded = {key: lens.show(value) for key, value in sorted(state.dict.items()) if key[0] != "_"}
    return f"{lens.name(one)} {loaded} key {state.key and lens.show(state.key[1])}"


def _listen_to_flush(session: Session, lens: Lens, log: list[Any]) -> None:
    def flushed(name: str) -> Any:
        def listener(session: Session, *_: Any) -> None:
            lens.learn()
            log.append({"event": name, **lens.session(session), **lens.states()})

        return listener

    for name in ("before_flush", "after_flush", "after_flush_postexec"):
        event.listen(session, name, flushed(name))
    for name in ("before_commit", "after_commit", "after_rollback"):
        event.listen(session, name, lambda _, name=name: log.append(name))
    event.listen(session, "after_soft_rollback", lambda *_: log.append("after_soft_rollback"))
    event.listen(session, "after_transaction_create", lambda *_: log.append("create"))
    event.listen(session, "after_transaction_end", lambda *_: log.append("end"))


def _listen_to_attributes(cls: type, lens: Lens, log: list[Any]) -> None:
    attributes: Any = inspect(cls).column_attrs
    for attribute in attributes:
        if not hasattr(attribute.columns[0], "table"):
            continue
        event.listen(
            getattr(cls, attribute.key),
            "set",
            lambda o, value, old, _i, key=attribute.key: log.append(
                f"set {lens.name(o)}.{key} {lens.show(value)} was {lens.show(old)}"
            ),
        )
    for name in ("load", "refresh", "expire"):
        event.listen(cls, name, lambda o, *_rest, name=name: log.append(f"{name} {lens.name(o)}"))
