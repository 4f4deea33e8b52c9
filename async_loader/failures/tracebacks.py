"""One failure of each kind as a sample: its message, the user's line, the traceback."""

from __future__ import annotations

import re
import traceback
from asyncio import CancelledError
from collections.abc import Iterator
from dataclasses import dataclass

from .error_attributes import MOST_LINKS, attribute, class_name
from .redaction import hiding_parameters, redacted, related, without_values
from .source_lines import user_line

_MESSAGE_LENGTH = 500
_LONGEST = 20_000
_VARYING = re.compile(
    r"'[^']*'|\"[^\"]*\"|\b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b|0x[0-9a-fA-F]+|\d+"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What is kept of an exception; the exception itself would keep all its frames alive.

    `message` in one line; `source`: the user's innermost line, `file:line in function`;
    `traceback`: in full, cut in the middle beyond 20,000 characters. No values in them.
    """

    message: str
    source: str | None = None
    traceback: str | None = None


def sample_of(error: BaseException | None, name: str) -> Sample:
    """Return the sample of a failure of that name; nothing to tell of an error that is None."""
    if error is None:
        return Sample(name)
    try:
        whole = _cut(_whole(error))
    except BaseException:  # its attributes, or so many behind it that they cannot be walked
        whole = None
    cancelled = isinstance(error, CancelledError)  # by its deadline, say: its name tells more
    message = name if cancelled else message_of(error)
    return Sample(message, source_of(error), whole)


def _whole(error: BaseException) -> str:
    """Return the traceback, with those of what is behind the error where they can be checked."""
    with hiding_parameters(error):
        found = traceback.TracebackException.from_exception(error, compact=True)
    alone = len(related(error)) >= MOST_LINKS  # of what is behind it nobody has seen all
    for link in [found] if alone else _links(found):
        # Private, and the same in Python 3.11 to 3.14: what it is, nothing public can shorten.
        link._str = _cut(without_values(str(link._str), error))  # type: ignore[attr-defined]
    if alone:
        found.exceptions = None
    return redacted("".join(found.format(chain=not alone)), error)


def source_of(error: BaseException) -> str | None:
    """Return the user's innermost line in the error's traceback, or in that of a part of it."""
    frames = [
        (frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            if (source := source_of(part)) is not None:
                return source
    return user_line(reversed(frames))


def message_of(error: BaseException) -> str:
    """Return what an error says, or the driver's below it, in a line of at most 500 characters."""
    message = " ".join(redacted(_said(error), error).split())
    return message[:_MESSAGE_LENGTH] or class_name(_innermost(error))


def shape_of(error: BaseException) -> str:
    """
    Return what messages of one fault have in common: all but numbers, quoted words and hex.

    For telling faults apart; it is not redacted, and so for no one's eyes.
    """
    return without_varying(_said(error)[:_MESSAGE_LENGTH])


def without_varying(message: str) -> str:
    """Return a message with a question mark for each number, quoted word and hex in it."""
    return _VARYING.sub("?", message)


def _said(error: BaseException) -> str:
    """Return a message without values; then its middle is cut out: scanning it takes time."""
    cause, others = error, 0
    while isinstance(cause, BaseExceptionGroup):  # which says how many, and not what
        others += len(cause.exceptions) - 1
        cause = cause.exceptions[0]
    cause = _innermost(cause)
    try:
        with hiding_parameters(cause):
            said = _cut(without_values(str(cause), error))
            return f"{said} (and {others} more in its group)" if others else said
    except BaseException:  # a user's own __str__ may raise anything
        return ""


def _innermost(error: BaseException) -> BaseException:
    return attribute(error, "orig", BaseException) or error


def _links(
    error: traceback.TracebackException | None,
) -> Iterator[traceback.TracebackException]:
    """Yield what is about to be formatted, with all that it was caused by, arose from, groups."""
    waiting = [error]
    while waiting:
        if (link := waiting.pop()) is not None:
            yield link
            waiting += [link.__cause__, link.__context__, *(link.exceptions or ())]


def _cut(text: str) -> str:
    """Return the text, without its middle where it is too long: both ends tell most."""
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]}\n[...]\n{text[-half:]}"
