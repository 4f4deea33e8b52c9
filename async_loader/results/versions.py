"""
Documents that earlier versions wrote, in the present form.

`RESULT_SCHEMA` is the number in a document's `schema`; it grows when a reader of the older form
would misread the newer one, and the older one then gets a converter to the next here. A key that
is only added has a default, and needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from .places import DocumentError

RESULT_SCHEMA: Literal[1] = 1

# From a schema to the next one.
CONVERTERS: Mapping[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {}


def newest(document: Any) -> Mapping[str, Any]:
    """
    Return a run's document in the present form.

    Raises `DocumentError` for one of a schema that this version does not know.
    """
    if not isinstance(document, Mapping):
        raise DocumentError("not an object")
    while (schema := document.get("schema")) != RESULT_SCHEMA:
        if type(schema) is not int or schema not in CONVERTERS:
            raise DocumentError(
                f"this is not a result of schema {RESULT_SCHEMA}: schema is {schema!r}"
            )
        document = CONVERTERS[schema](document)
    return _completed(document)


def _completed(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document with what the first writers of its schema left to be understood."""
    operations, errors = document.get("by_operation"), document.get("errors")
    if isinstance(operations, Mapping):
        known = {n: _with(o, "indeterminate", 0) for n, o in operations.items()}
        document = {**document, "by_operation": known}
    if isinstance(errors, Mapping):  # a fault was named by its kind alone
        document = {**document, "errors": {n: _with(e, "kind", n) for n, e in errors.items()}}
    return document


def _with(part: Any, key: str, value: Any) -> Any:
    return {key: value, **part} if isinstance(part, Mapping) else part
