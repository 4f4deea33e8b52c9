"""What is said of a value that an option cannot have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Mapping

from pydantic_core import ErrorDetails

# By pydantic's names for mistakes; what is not here says it well enough.
_WORDS = {
    "int_parsing": "it is a whole number",
    "int_parsing_size": "it is a whole number, of fewer digits",
    "int_type": "it is a whole number",
    "int_from_float": "it is a whole number",
    "float_parsing": "it is a number",
    "float_type": "it is a number",
    "finite_number": "it is a number",
    "bool_parsing": "it is true or false",
    "bool_type": "it is true or false",
    "string_type": "it is text",
    "path_type": "it is a path",
    "list_type": "it is a list",
    "missing": "it is needed",
    "string_too_short": "it is empty",
    "too_short": "it is empty",
    "string_too_long": "it has at most {max_length} characters",
    "greater_than": "it is above {gt:{form}}",
    "greater_than_equal": "it is at least {ge:{form}}",
    "less_than": "it is below {lt:{form}}",
    "less_than_equal": "it is at most {le:{form}}",
    "literal_error": "it is {expected}",
}

# A longer value is not shown again.
_SHOWN = 30


def with_flags(message: str, options: Container[str]) -> str:
    """
    Return a message with the options that it names as the command line has them.

    What is raised below the command names a parameter, `pool_size`: a library has no flags, and a
    configuration of the service says it so.
    """

    def flag(named: re.Match[str]) -> str:
        name = named[1]
        return f"--{name.replace('_', '-')}" if name in options else named[0]

    return re.sub("`([a-z_]+)`", flag, message)


def in_our_words(details: ErrorDetails) -> str:
    """Return what a value may be, for one that may not."""
    context = details.get("ctx", {})
    words = _WORDS.get(details["type"])
    if words is None:
        return details["msg"].removeprefix("Value error, ").removeprefix("Input ").strip()
    bound = next((v for v in context.values() if isinstance(v, int | float)), 0)
    return words.format(**context, form="," if float(bound).is_integer() else "g").replace(".0", "")


def value_hint(details: ErrorDetails, value: object) -> str:
    """Return what was given, or the choice that was probably meant, to follow what is wrong."""
    if not isinstance(value, str):
        return ""
    if details["type"].startswith(("int_", "float_")):
        return f", not {value!r}" if len(value) <= _SHOWN else ""
    if details["type"] != "literal_error":
        return ""
    expected = details.get("ctx", {}).get("expected", "")
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(", ")]
    hint = closest(value, choices)
    return f"; {hint}" if hint else ""


def closest(name: str, names: Iterable[str] | Mapping[str, object]) -> str | None:
    """Return a question after the name that is closest to this one, if one is close."""
    folded = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]}?" if close else None
