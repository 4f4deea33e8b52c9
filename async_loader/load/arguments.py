"""Arguments of a workload, which whoever runs it gives: `--arg page_size=50`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ..errors import ConfigurationError

T = TypeVar("T")

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_KINDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}


class Argument(Generic[T]):
    """What `workload.argument` returns: `value` is what was given, or the default."""

    def __init__(self, name: str, default: T | None, kind: Callable[[str], T]) -> None:
        self.name = name
        self.default = default
        self._kind = kind
        self._given: list[T] = []

    @property
    def value(self) -> T:
        """What was given, else the default; raises `ConfigurationError` where there is neither."""
        if self._given:
            return self._given[0]
        if self.default is None:
            raise ConfigurationError(f"the argument {self.name} has no default: give {self.name}=…")
        return self.default

    def give(self, value: object) -> None:
        """Take a value, or read it from its text; raises `ConfigurationError`, one line."""
        self._given = [self._read(value) if isinstance(value, str) else self._checked(value)]

    def forget(self) -> None:
        """Have the default again."""
        self._given = []

    def _read(self, text: str) -> T:
        kind: Any = _boolean if self._kind is bool else self._kind
        try:
            read: T = kind(text)
        except Exception as error:
            if self._kind in _KINDS:
                raise self._wrong(repr(text)) from None
            raise ConfigurationError(
                f"the argument {self.name} cannot be read: {type(error).__name__}"
            ) from error
        return read

    def _checked(self, value: Any) -> T:
        kind: Any = self._kind
        if self._kind is float and type(value) is int:
            value = float(value)
        if self._kind in _KINDS and type(value) is not kind:
            raise self._wrong(repr(value))
        checked: T = value
        return checked

    def _wrong(self, what: str) -> ConfigurationError:
        kind = _KINDS[self._kind]
        return ConfigurationError(f"the argument {self.name} is {kind}, not {what}")


def argument_of(
    name: str, default: T | None, kind: Callable[[str], T] | None, whose: str
) -> Argument[T]:
    """Return a new argument; raises `ConfigurationError` for one that nobody can give."""
    given: object = name  # a caller may give anything
    if not (isinstance(given, str) and given.isprintable() and given.strip()) or "=" in given:
        raise ConfigurationError(
            f"{whose}: the name of an argument is text without =, not {name!r}"
        )
    if kind is None and default is None:
        raise ConfigurationError(f"{whose}: argument {name!r} needs a default or a type=")
    chosen: Any = kind or type(default)
    if kind is None and chosen not in _KINDS:
        raise ConfigurationError(
            f"{whose}: argument {name!r} needs a type= that makes {chosen.__name__} of text"
        )
    return Argument(name, default, chosen)


def give_all(
    arguments: Mapping[str, Argument[Any]], given: Mapping[str, object], whose: str
) -> None:
    """Give the arguments these values, and the others their defaults; one line for a wrong one."""
    for name in given:
        if name not in arguments:
            close = difflib.get_close_matches(name, arguments, n=1)
            known = f"it has {', '.join(arguments)}" if arguments else "it has none"
            hint = f"did you mean {close[0]}?" if close else known
            raise ConfigurationError(f"{whose} has no argument {name!r}: {hint}")
    for name, argument in arguments.items():
        argument.forget()
        if name in given:
            argument.give(given[name])
        elif argument.default is None:
            raise ConfigurationError(f"{whose} needs the argument {name}: give {name}=…")


def _boolean(text: str) -> bool:
    lower = text.strip().lower()
    if lower not in (*_YES, *_NO):
        raise ValueError(text)
    return lower in _YES
