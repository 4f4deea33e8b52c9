"""What a command leaves behind: a summary on the terminal, documents in files, a complaint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..errors import ConfigurationError
from ..failures.redaction import printable
from .streams import give_up, stderr, stdout, tell

DONE = 0
NOT_WRITTEN = 1

# How to render what a command found, by the form's name in --out FORM=FILE.
Forms = Mapping[str, Callable[[Any], str]]


def check_outputs(outputs: Sequence[str], forms: Forms) -> None:
    """Refuse, before any work is done, a form that there is not, or a file that cannot be."""
    written: dict[Path, str] = {}
    for output in outputs:
        form, _, path = output.partition("=")
        if form not in forms:
            raise ConfigurationError(f"--out {output}: this command writes {', '.join(forms)}")
        if path == "-":
            continue
        target = Path(path).resolve()  # the file that a symbolic link stands for
        if not _can_be_written(target):
            raise ConfigurationError(f"--out {output}: cannot write a file there")
        if target in written and not _is_device(target):
            raise ConfigurationError(f"--out {output}: {written[target]} is written there already")
        written[target] = output


def _can_be_written(target: Path) -> bool:
    if target.is_dir():
        return False
    in_folder = target.parent.is_dir() and os.access(target.parent, os.W_OK | os.X_OK)
    if target.exists() and (_is_device(target) or not in_folder):
        return os.access(target, os.W_OK)
    return in_folder


def _is_device(target: Path) -> bool:
    """Whether it is a pipe, a terminal, `/dev/null`: nothing that can be replaced by a file."""
    return target.exists() and not target.is_file()


def show(render: Callable[..., str], outputs: Sequence[str]) -> int:
    """
    Print a summary on stdout, or on stderr where stdout is an output's.

    Return 0, or 1 where that failed: the outputs are written all the same.
    """
    stream = stderr() if any(output.endswith("=-") for output in outputs) else stdout()
    terminal = stream.isatty()
    width = _columns(stream) if terminal else 80
    color = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    try:
        stream.write(render(width=width, color=color))
        stream.flush()
    except OSError as error:
        give_up(stream)
        return complain(f"the summary could not be printed: {error.strerror}", NOT_WRITTEN)
    return DONE


def write_job_summary(outputs: Sequence[str], forms: Forms, found: Any) -> None:
    """Add what was found to a CI job's summary, where the environment names its file."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path or any(Path(output.partition("=")[2]) == Path(path) for output in outputs):
        return
    try:
        with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as summary:
            summary.write(forms["markdown"](found) + "\n")
    except OSError as error:  # it is nothing that was asked for
        tell(f"async_loader: the job's summary could not be written: {error.strerror}")


def write_outputs(outputs: Sequence[str], forms: Forms, found: Any, code: int) -> int:
    """Write what was found wherever it is wanted; return the code, or 1 where that failed."""
    for output in outputs:
        form, _, path = output.partition("=")
        try:
            _write(path, forms[form](found))
        except OSError as error:
            code = code or NOT_WRITTEN
            complain(f"--out {output} could not be written: {error.strerror}", code)
    return code


def _write(path: str, text: str) -> None:
    """Write a file as a whole or not at all, where that can be; `-` is stdout."""
    if path == "-":
        stdout().write(text)
        stdout().flush()
        return
    target = Path(path).resolve()
    data = text.encode(errors="backslashreplace")  # a message may hold what is no character
    if _is_device(target) or (target.exists() and not os.access(target.parent, os.W_OK | os.X_OK)):
        target.write_bytes(data)
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        if target.exists():
            partial.chmod(target.stat().st_mode & 0o7777)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def complain(message: str, code: int) -> int:
    """Print one line on stderr; return the code."""
    tell(f"async_loader: {printable(message)}")  # an application's words may be in it
    return code


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal; COLUMNS outranks what it says of itself."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
