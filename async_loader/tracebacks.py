"""One failure of each kind as a sample: its message, the user's line, the traceback."""

from __future__ import annotations

import traceback
from asyncio import CancelledError
from dataclasses import dataclass

from .redaction import hiding_parameters, redacted
from .source_lines import user_line

_MESSAGE_LENGTH = 500
_TRACEBACK_LENGTH = 20_000


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
    with hiding_parameters(error):
        lines = traceback.TracebackException.from_exception(error, compact=True).format()
        whole = redacted("".join(lines), error)
    cancelled = isinstance(error, CancelledError)  # by its deadline, say: its name tells more
    message = name if cancelled else _message(error)
    return Sample(message, source_of(error), _cut(whole))


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


def _message(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    try:
        with hiding_parameters(cause):
            text = str(cause)
    except Exception:  # a user's own __str__ may raise anything
        text = ""
    message = " ".join(redacted(text, error).split()) or type(cause).__name__
    return message[:_MESSAGE_LENGTH]


def _cut(text: str) -> str:
    """Return the text, without its middle where it is too long: both ends tell most."""
    if len(text) <= _TRACEBACK_LENGTH:
        return text
    half = _TRACEBACK_LENGTH // 2
    return f"{text[:half]}\n[...]\n{text[-half:]}"
