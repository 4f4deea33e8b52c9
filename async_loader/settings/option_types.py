"""What a value of an option may look like: times, shares, limits, outputs, expressions."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..concurrency.rates import parse_rate
from ..errors import ConfigurationError
from ..load.pacing.limits import MOST_SECONDS, Limit
from ..load.pacing.schedules import Stage
from ..load.workloads import BUILT_IN
from ..verdict import regression, thresholds

# Ours stays what the command was started with, while the process's is stderr.
_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
OUTPUTS = ("codequality", "html", "json", "junit", "markdown", "sarif")

# A comparison's rows: the modes, and the first of them with SQLAlchemy's own inserts.
CompareMode = Literal["semaphore", "chunks", "unbounded", "sync", "threads", "stock"]

_UNITS = {
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
_LEVEL = re.compile(r"\d+")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m|h|d)\s*")
_PLAIN = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Metavar:
    """What `--help` shows for the value of a flag."""

    text: str


def parse_seconds(text: str) -> float:
    """
    Return seconds for `30s`, `2m`, `500ms`, `1h30m`, `1d` or a plain number; else `ValueError`.

    Of several parts each unit is smaller than the one before.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    parts = [*_PART.finditer(text)]
    units = [_UNITS[part[2]] for part in parts]
    falling = all(one > next_ for one, next_ in pairwise(units))
    if not parts or not falling or "".join(part[0] for part in parts) != text:
        raise ValueError("a time looks like 500ms, 30s, 2m, 1h30m or 1d")
    return sum(float(part[1]) * unit for part, unit in zip(parts, units, strict=True))


def _seconds(value: object) -> object:
    return parse_seconds(value) if isinstance(value, str) else value


def parse_share(value: object) -> object:
    """Return a share of 1 for `1%`, `0.5 %` or a plain number."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError("a share looks like 0.05 or 5%") from None
    return value


def parse_limit(value: object) -> object:
    """Return a `Limit` for a plain number (operations) or a time (`5s`)."""
    if isinstance(value, Limit) or not isinstance(value, str | int):
        return value
    try:
        if isinstance(value, str) and not value.strip().isdecimal():
            return Limit(duration=parse_seconds(value))
        return Limit(ops=int(value))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def split_commas(value: object) -> object:
    """
    Split on commas, as a list in a variable is written; flags repeat instead.

    An empty part is refused: it is a pipeline's variable that is not set, and a gate that asks
    for nothing passes everything. Commas within braces belong to a name.
    """
    parts = re.split(r",(?![^{]*\})", value) if isinstance(value, str) else value
    if isinstance(parts, list) and any(isinstance(p, str) and not p.strip() for p in parts):
        raise ValueError(
            "it is empty, as a variable is that is not set: give it a value or leave it out"
        )
    return parts


def _output(value: str) -> str:
    form, separator, path = value.partition("=")
    if form not in OUTPUTS or not separator or not path:
        raise ValueError(f"an output looks like FORM=FILE, with FORM one of {', '.join(OUTPUTS)}")
    return f"{form}={file_to_write(path)}"


def file_to_write(path: str) -> str:
    """Return where that is whatever folder a workload changes to; `-` for stdout by any name."""
    if path in _STDOUT:
        return "-"
    return os.path.abspath(path)  # noqa: PTH100  /dev/fd/63 is not to be resolved


def workload_target(value: str) -> str:
    """Return the value if it can name a workload; whether there is one, its loading tells."""
    place, colon, name = value.rpartition(":")
    if value in BUILT_IN or (place and colon and name) or value.endswith(".py"):
        return value
    close = difflib.get_close_matches(value, BUILT_IN, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(BUILT_IN)}"
    raise ValueError(f"no built-in workload {value!r}: {hint} Your own is file.py, or file.py:NAME")


def threshold_text(value: str) -> str:
    """Return the value if it is a threshold."""
    try:
        thresholds.parse(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


def check_text(value: str) -> str:
    """Return the value if it can be held against a baseline."""
    try:
        regression.parse_check(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


def _argument(value: str) -> str:
    name, separator, _ = value.partition("=")
    if not separator or not name:
        raise ValueError("an argument looks like key=value")
    if not value.isprintable():
        raise ValueError("an argument is one line of printable characters")
    return value


def each_once(arguments: list[str]) -> list[str]:
    """Return arguments of which none is given twice."""
    names = [argument.partition("=")[0] for argument in arguments]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the argument {twice} is given twice")
    return arguments


def arguments_of(arguments: list[str]) -> dict[str, str]:
    """Return arguments by name."""
    return {name: value for name, _, value in (one.partition("=") for one in arguments)}


def parse_stage(text: str) -> Stage:
    """Return the stage for `30s:40` or, of a rate, `30s:40/s`; else `ValueError`."""
    time, _, target = text.partition(":")
    try:
        if _LEVEL.fullmatch(target):
            return Stage(parse_seconds(time), float(target))
        rate = 0.0 if re.fullmatch(r"0+/[smh]", target) else parse_rate(target)
        return Stage(parse_seconds(time), rate)
    except ValueError:
        raise ValueError("a stage looks like 30s:40, or 30s:40/s for a rate") from None


def level_text(value: str) -> str:
    """Return the value if it is a load: a concurrency (`16`) or a rate (`200/s`)."""
    if not re.fullmatch(r"[1-9]\d*", value):
        parse_rate(value)
    return value


def _rate(value: str) -> str:
    parse_rate(value)
    return value


def _stage(value: str) -> str:
    parse_stage(value)
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(le=MOST_SECONDS), Metavar("TIME")]
Rate = Annotated[str, AfterValidator(_rate), Metavar("RATE")]
StageText = Annotated[str, AfterValidator(_stage)]
Share = Annotated[float, BeforeValidator(parse_share), Field(ge=0, le=1), Metavar("SHARE")]
Output = Annotated[str, AfterValidator(_output)]
Argument = Annotated[str, AfterValidator(_argument)]
Warmup = Annotated[Limit, BeforeValidator(parse_limit), Metavar("N|TIME")]
