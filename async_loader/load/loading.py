"""Finding a workload by its name: a built-in one, `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

import difflib
from types import ModuleType

from ..errors import WorkloadError
from ..runtime.user_modules import load_module
from .workload import Workload

_HOW = 'it is `workload = Workload("name")` with an @workload.operation("name")'


def load_workload(target: str) -> Workload:
    """
    Return the workload of `package.module:name` or `path/to/file.py:name`.

    Raises `WorkloadError`, one line that names the file and line at fault.
    """
    place, _, name = target.rpartition(":")
    if target.endswith(".py"):
        place, name = target, ""
    module = load_module(place)
    workload = getattr(module, name, None) if name else _only_one(place, module)
    if not isinstance(workload, Workload):
        raise WorkloadError(f"{place} has no workload {name!r}: {_workloads_of(module, name)}")
    if not workload.operations:
        raise WorkloadError(
            f"{place}: workload {name!r} has no operation: "
            "decorate a coroutine function with @workload.operation(name)"
        )
    return workload


def _only_one(place: str, module: ModuleType) -> Workload:
    """Return the workload of a module that has one."""
    found = {
        id(value): (name, value)
        for name, value in vars(module).items()
        if isinstance(value, Workload)
    }
    if len(found) != 1:
        names = ", ".join(name for name, _ in found.values())
        if not found:
            raise WorkloadError(f"{place} defines no workload: {_HOW}")
        one = f"{place}:{names.partition(',')[0]}"
        raise WorkloadError(f"{place} has several workloads ({names}): name one, as {one}")
    return next(value for _, value in found.values())


def _workloads_of(module: ModuleType, name: str) -> str:
    names = [n for n, value in vars(module).items() if isinstance(value, Workload)]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"it has {', '.join(names)}" if names else "it defines none"
