"""
The command's own stdout and stderr, apart from what anybody's code does with the process's.

A workload prints, logs to stdout, starts children that write there, redirects `sys.stdout` or
closes it, and none of it may reach what a pipeline reads. So the command keeps a descriptor of its
own for each (`kept_streams`), and descriptor 1 is stderr while it runs: ours goes to the real
stdout, theirs to stderr.
"""

from __future__ import annotations

import codecs
import fcntl
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

# Above what a program expects to be free, or closes because it is the first few.
_LEAST_DESCRIPTOR = 64
_REPLACE = "async_loader_replace"
# What our tables, bars and charts are drawn with, for who cannot show it.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━╌┄═", "-"),
        **dict.fromkeys("│┃║╎", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛╸╺", "+"),
        **dict.fromkeys("█▇▆▅▄▃▂▁▌▐░▒▓•·", "#"),
        **{"µ": "u", "×": "x", "…": "...", "\u2013": "-", "\u2014": "-", "\u2019": "'"},
    }
)


class _Ours:
    out: TextIO | None = None
    err: TextIO | None = None
    is_for_forks = True  # which are the command's own, until a workload may make some


_ours = _Ours()


def stdout() -> TextIO:
    """Return the stdout that the command was started with."""
    return _ours.out or sys.stdout


def stderr() -> TextIO:
    """Return the stderr that the command was started with."""
    return _ours.err or sys.stderr


def tell(text: str) -> None:
    """Write a line to stderr, where somebody takes it."""
    with suppress(OSError, ValueError):
        stderr().write(f"{text}\n")
        stderr().flush()


def keep_from_forks() -> None:
    """
    Let no process that is forked from this one from now on hold our stdout open.

    A workload's own may live on when the command has ended, and whoever reads the report would
    wait for its end.
    """
    _ours.is_for_forks = False
    if not _hooks:
        os.register_at_fork(after_in_child=_let_go_in_a_fork)
        _hooks.append(_let_go_in_a_fork)


def _let_go_in_a_fork() -> None:
    if _ours.out is not None and not _ours.is_for_forks:
        give_up(_ours.out)


_hooks: list[object] = []  # the interpreter has no way to take one back


def give_up(stream: TextIO) -> None:
    """Let go what could not be written: nothing more can be, nor what is in the buffer."""
    with suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


@contextmanager
def kept_streams() -> Iterator[None]:
    """Keep stdout and stderr for the command's own words; other code's go to stderr."""
    if _ours.out is not None:
        yield
        return
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    _ours.out, _ours.err = _own(sys.stdout, 1), _own(sys.stderr, 2)
    if _has_no_reader(2):
        give_up(_ours.err)
        os.dup2(_ours.err.fileno(), 2)  # what prints is not to fail of it
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with what stderr gets
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr, _ours.out, _ours.err):
            _flush(stream)
        with suppress(OSError):
            os.dup2(_ours.out.fileno(), 1)
        for stream in (_ours.out, _ours.err):
            with suppress(OSError, ValueError):
                stream.close()
        _ours.out = _ours.err = None


def _own(stream: TextIO, descriptor: int) -> TextIO:
    """Return a stream of our own to where this one writes."""
    own = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LEAST_DESCRIPTOR)
    kind = _Unfailing if descriptor == 2 else io.TextIOWrapper
    return kind(
        open(own, "wb"),  # noqa: PTH123
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors=_REPLACE,
        line_buffering=descriptor == 2 or os.isatty(own),
    )


class _Unfailing(io.TextIOWrapper):
    """A stream whose reader may be gone: then there is nobody to tell, and the work goes on."""

    def write(self, text: str) -> int:
        """See `io.TextIOBase.write`."""
        try:
            return super().write(text)
        except OSError:
            give_up(self)
            return len(text)

    def flush(self) -> None:
        """See `io.TextIOBase.flush`."""
        try:
            super().flush()
        except OSError:
            give_up(self)


def _open_what_is_closed() -> None:
    """Let no file or socket become descriptor 0, 1 or 2, which whoever started us has closed."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != descriptor:
                os.dup2(nothing, descriptor)
                os.close(nothing)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _has_no_reader(descriptor: int) -> bool:
    looking = select.poll()
    looking.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in looking.poll(0))


def flush_all() -> None:
    """Write what is in the buffers of our own streams and of the process's."""
    for stream in (stdout(), stderr(), sys.stdout, sys.stderr):
        _flush(stream)


def _flush(stream: TextIO | None) -> None:
    if stream is None:  # which somebody has put in its place
        return
    try:
        stream.flush()
    except (ValueError, AttributeError):  # closed by somebody, or what is no stream
        return
    except OSError:  # whoever read it is gone
        give_up(stream)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return for what cannot be encoded what comes closest to it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end].translate(_PLAIN)
    text = "".join(map(_plain, found))
    return text, error.end


def _plain(character: str) -> str:
    if "\ud800" <= character <= "\udfff":  # half of a pair, or a byte that was no text
        return f"\\u{ord(character):04x}"
    return character if character.isascii() else "?"


codecs.register_error(_REPLACE, _replaced)
