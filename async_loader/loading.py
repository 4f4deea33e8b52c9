"""Finding a workload by its name: a built-in one, `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from .errors import AsyncLoaderError, WorkloadError
from .workload import Workload


def load_workload(target: str) -> Workload:
    """
    Return the workload of `package.module:name` or `path/to/file.py:name`.

    Raises `WorkloadError`, one line that names the file and line at fault.
    """
    place, _, name = target.rpartition(":")
    module = load_module(place)
    workload = getattr(module, name, None)
    if not isinstance(workload, Workload):
        raise WorkloadError(f"{place} has no workload {name!r}: {_workloads_of(module, name)}")
    if not workload.operations:
        raise WorkloadError(
            f"{place}: workload {name!r} has no operation: "
            "decorate a coroutine function with @workload.operation(name, kind=...)"
        )
    return workload


def load_module(place: str) -> ModuleType:
    """Import `package.module` or `path/to/file.py`; raises `WorkloadError`."""
    return _import_file(Path(place)) if place.endswith(".py") else _import_module(place)


def _import_module(name: str) -> ModuleType:
    # The installed command, unlike `python -m`, does not look in the current folder.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return _imported(lambda: importlib.import_module(name), name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise WorkloadError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As for a script: it imports its neighbours, and its classes can be found again.
    sys.path.insert(0, str(path.parent.absolute()))
    sys.modules[path.stem] = module
    execute = spec.loader.exec_module

    def run() -> ModuleType:
        execute(module)
        return module

    return _imported(run, str(path))


def _imported(load: Callable[[], ModuleType], target: str) -> ModuleType:
    try:
        return load()
    except AsyncLoaderError as error:
        raise WorkloadError(str(error)) from error
    except SyntaxError as error:
        raise WorkloadError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if not _is_machinery(f.filename)]
        where = f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else f"importing {target}"
        raise WorkloadError(f"{where}: {type(error).__name__}: {error}") from error


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen") or "importlib" in filename


def _workloads_of(module: ModuleType, name: str) -> str:
    names = [n for n, value in vars(module).items() if isinstance(value, Workload)]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"it has {', '.join(names)}" if names else "it defines none"
