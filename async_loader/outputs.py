"""What a command leaves behind: a summary on the terminal, documents in files, a complaint."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigurationError

DONE = 0
NOT_WRITTEN = 1

# How to render what a command found, by the form's name in --out FORM=FILE.
Forms = Mapping[str, Callable[[Any], str]]


def check_outputs(outputs: Sequence[str], forms: Forms) -> None:
    """Refuse, before any work is done, a form that there is not, or a file that cannot be."""
    for output in outputs:
        form, _, path = output.partition("=")
        if form not in forms:
            raise ConfigurationError(f"--out {output}: this command writes {', '.join(forms)}")
        folder = Path(path).absolute().parent
        if path != "-" and (not os.access(folder, os.W_OK) or Path(path).is_dir()):
            raise ConfigurationError(f"--out {output}: cannot write a file there")


def show(render: Callable[..., str], outputs: Sequence[str]) -> int:
    """
    Print a summary on stdout, or on stderr where stdout is an output's.

    Return 0, or 1 where that failed: the outputs are written all the same.
    """
    stream = sys.stderr if any(output.endswith("=-") for output in outputs) else sys.stdout
    terminal = stream.isatty()
    width = shutil.get_terminal_size().columns if terminal else 80
    color = terminal and "NO_COLOR" not in os.environ
    try:
        stream.write(render(width=width, color=color))
        stream.flush()
    except OSError as error:
        # Nothing more can be written there, not what is in the buffer either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return complain(f"the summary could not be printed: {error.strerror}", NOT_WRITTEN)
    return DONE


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
    """Write a file as a whole or not at all; `-` is stdout."""
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a pipe or /dev/null cannot be replaced
        target.write_text(text, encoding="utf-8")
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def complain(message: str, code: int) -> int:
    """Print one line on stderr; return the code."""
    sys.stderr.write(f"async_loader: {message}\n")
    return code
