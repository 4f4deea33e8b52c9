"""Modules and functions of the user's, found by their names, and failing in one line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from ..errors import AsyncLoaderError, WorkloadError
from ..failures.redaction import redacted
from ..failures.source_lines import short_path
from ..failures.tracebacks import source_of

T = TypeVar("T")

# Files that have come from another machine, by what they are called there.
_stand_ins: dict[str, Path] = {}


def load_module(place: str) -> ModuleType:
    """Import `package.module` or `path/to/file.py`; raises `WorkloadError`."""
    if place in _stand_ins:
        return _import_file(_stand_ins[place])
    return _import_file(Path(place)) if place.endswith(".py") else _import_module(place)


def stand_in(place: str, path: Path) -> None:
    """From now on, import this file for a path that is another machine's."""
    _stand_ins[place] = path


def _import_module(name: str) -> ModuleType:
    # The installed command, unlike `python -m`, does not look in the current folder.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return _imported(lambda: importlib.import_module(name), name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise WorkloadError(f"there is no file {path}")
    path = path.resolve()
    name = path.stem
    if not _is_free(name, path):
        name = f"_workload_{name}"  # the other module, of Python's own say, stays as it is
    if name in sys.modules and _is_free(name, path):
        return sys.modules[name]  # executed once, as other modules are
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As for a script: it imports its neighbours, and its classes can be found again.
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    execute = spec.loader.exec_module

    def run() -> ModuleType:
        try:
            execute(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return _imported(run, str(path))


def _is_free(name: str, path: Path) -> bool:
    """Whether no other file is the module of that name."""
    known = sys.modules.get(name)
    return known is None or getattr(known, "__file__", None) == str(path)


def called(function: Callable[[], T], role: str) -> T:
    """Return what a user's function returns; raises `WorkloadError` with the line that raised."""
    try:
        return function()
    except (AsyncLoaderError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit() as well, of a command called as a function
        raise WorkloadError(f"{_where(error, role)}: {role}: {_what(error)}") from error


def _imported(load: Callable[[], ModuleType], target: str) -> ModuleType:
    try:
        return load()
    except AsyncLoaderError as error:
        raise WorkloadError(str(error)) from error
    except SyntaxError as error:
        raise WorkloadError(
            f"{short_path(error.filename or target)}:{error.lineno}: {error.msg}"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # pytest.skip() is no Exception either
        where = _where(error, f"importing {target}")
        raise WorkloadError(f"{where}: {_what(error)}{_hint(error)}") from error


def _where(error: BaseException, otherwise: str) -> str:
    """Return file and line of the user's that an error came from."""
    return (source_of(error) or otherwise).partition(" in ")[0]


def _what(error: BaseException) -> str:
    return f"{type(error).__name__}: {redacted(str(error), error)}".splitlines()[0]


def _hint(error: BaseException) -> str:
    """Return what to do about an error of importing, where that is known."""
    if isinstance(error, ModuleNotFoundError):
        return " (install it here, or start in the folder that holds it)"
    if isinstance(error, SystemExit):
        return " (a workload is imported: keep what runs under if __name__ == '__main__')"
    return ""
