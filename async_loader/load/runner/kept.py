"""
Coroutines and async generators that operations have made and somebody keeps, and nobody awaited.

Python tells of a coroutine when it is dropped. One that is appended to a list of a module is not,
until Python ends: so they are looked for where a run ends, among all that there is.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType
from typing import Any, TypeAlias
from weakref import WeakSet

from ...failures.classification import Failure
from ...failures.source_lines import PACKAGE, origin_of, short_path
from ...failures.tracebacks import Sample
from ..metrics.metrics import Metrics
from ..workload import Operation
from .work_done import NOT_AWAITED, is_created

NeverBegun: TypeAlias = "CoroutineType[Any, Any, Any] | AsyncGeneratorType[Any, Any]"


class KeptCoroutines:
    """
    What was made since the run began and has never begun itself, each counted once.

    A coroutine does not know its maker. Of several operations it is laid to the one that names
    its function, and where that is none or several, to the one of them that was performed most.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = tuple(operations)
        self._known: WeakSet[NeverBegun] = WeakSet(_never_begun())

    def count(self, metrics: Metrics) -> None:
        """Count an operation as failed for each that is new: some 20 ms."""
        done = {name: found.count for name, found in metrics.operations().items()}
        for one in _never_begun():
            if one in self._known:
                continue
            self._known.add(one)
            name = max(self._makers(one.__name__), key=lambda name: done[name], default=None)
            if name is None or not done[name]:
                continue
            done[name] -= 1  # no more can fail than have ended well
            code = _code_of(one)
            where = f"{short_path(code.co_filename)}:{code.co_firstlineno}"
            told = f"nobody awaited {one.__qualname__} ({where}), which somebody keeps"
            metrics.undone(name, Failure(NOT_AWAITED), None, Sample(told, where))

    def _makers(self, name: str) -> list[str]:
        named = [o.name for o in self._operations if name in _names_of(o)]
        return named or [o.name for o in self._operations]


def _never_begun() -> list[NeverBegun]:
    objects = gc.get_objects()
    # Those that are about to begin, on whatever loop. By type: a class may lie about itself.
    tasks = [one for one in objects if issubclass(type(one), asyncio.Task)]
    about_to = {id(task.get_coro()) for task in tasks if not task.done()}
    return [
        one
        for one in objects
        if (
            type(one) is CoroutineType
            and inspect.getcoroutinestate(one) == inspect.CORO_CREATED
            and id(one) not in about_to
            and not one.cr_code.co_filename.startswith(PACKAGE)
        )
        # A library may well make one ahead, and begin it later.
        or (
            type(one) is AsyncGeneratorType
            and origin_of(one.ag_code.co_filename) == "own"
            and is_created(one)
        )
    ]


def _code_of(one: NeverBegun) -> CodeType:
    return one.ag_code if isinstance(one, AsyncGeneratorType) else one.cr_code


def _names_of(operation: Operation) -> Iterator[str]:
    twin = operation.twin
    for function in (operation.function, twin and twin.function):
        code = getattr(inspect.unwrap(function), "__code__", None) if function else None
        if isinstance(code, CodeType):
            yield from _names_in(code)


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield what a function names, and what the functions within it do."""
    yield from (*code.co_names, *code.co_freevars, *code.co_cellvars, *code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_name
            yield from _names_in(constant)
