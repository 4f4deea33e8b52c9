"""
Finding what a project has: mapped classes, a session factory, an application.

Files are read first, without being executed; only modules that look as if they had one of these
are imported, as the load test will import them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Mapper

from ..errors import ConfigurationError
from ..runtime.user_modules import load_module

_NOT_LOOKED_AT = {"tests", "test", "migrations", "alembic", "node_modules", "build", "dist", "docs"}
_MODELS = {"DeclarativeBase", "declarative_base", "mapped_column", "relationship", "SQLModel"}
_SESSIONS = {"async_sessionmaker", "async_scoped_session", "create_async_engine"}
_APPLICATIONS = {"FastAPI"}


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a module, and what it stands for."""

    module: str
    name: str
    value: Any = field(repr=False)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


@dataclass(slots=True)
class Project:
    """What was found."""

    models: list[Name] = field(default_factory=list)
    sessions: Name | None = None
    engine: Name | None = None
    app: Name | None = None
    is_factory: bool = False
    """Whether the application is what a function without parameters makes."""


def look(folder: Path) -> Project:
    """
    Return what a project's folder has.

    Raises `ConfigurationError` where there is nothing to load, and `WorkloadError` for a module
    that cannot be imported, each in one line.
    """
    project, read = Project(), 0
    for path in _python_files(folder):
        read += 1
        names, assigned = _names_in(path)
        if names & (_MODELS | _SESSIONS | _APPLICATIONS):
            module = load_module(_module_of(path.relative_to(folder)))
            _take(project, module, assigned)
    if not (project.models or project.app):
        raise ConfigurationError(
            f"no mapped class and no FastAPI application in the {read} Python files here: "
            "start in your project's folder, or write a workload as the how-to says"
        )
    return project


def _python_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _NOT_LOOKED_AT:
            continue
        if path.is_dir() and not path.is_symlink() and not (path / "pyvenv.cfg").exists():
            yield from _python_files(path)
        elif path.suffix == ".py" and path.stem not in ("conftest", "setup", "__main__"):
            yield path


def _names_in(path: Path) -> tuple[set[str], set[str]]:
    """
    Return the names that a file uses, and those that it assigns.

    None of one that is no Python, is a test or is a workload already.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return set(), set()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if "Workload" in imported or path.stem.startswith("test_"):
        return set(), set()
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return names, {node.id for node in stored if isinstance(node.ctx, ast.Store)}


def _module_of(path: Path) -> str:
    """Return by which name a file is imported; `src` is a folder of packages and none itself."""
    parts = list(path.with_suffix("").parts)
    if parts[0] == "src" and len(parts) > 1:
        parts = parts[1:]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def _take(project: Project, module: ModuleType, assigned: set[str]) -> None:
    """Take what a module has and has not imported; of sessions and applications the first."""
    for name, value in vars(module).items():
        found = Name(module.__name__, name, value)
        if isinstance(value, type):
            if value.__module__ == module.__name__ and _is_mapped(value):
                project.models.append(found)
        elif project.app is None and _makes_applications(value, module):
            project.app, project.is_factory = found, True
        elif name not in assigned:
            continue
        elif isinstance(value, async_sessionmaker | async_scoped_session):
            project.sessions = project.sessions or found
        elif isinstance(value, AsyncEngine):
            project.engine = project.engine or found
        elif _is_application(value) and (project.app is None or project.is_factory):
            project.app, project.is_factory = found, False


def _is_mapped(value: type) -> bool:
    return isinstance(value.__dict__.get("__mapper__"), Mapper)


def _is_application(value: object) -> bool:
    return any(kind.__name__ == "FastAPI" for kind in type(value).__mro__)


def _makes_applications(value: object, module: ModuleType) -> bool:
    """Whether it is a function of the module's, without parameters, that says it returns one."""
    code = getattr(value, "__code__", None)
    returned = getattr(value, "__annotations__", {}).get("return")
    return (
        code is not None
        and getattr(value, "__module__", None) == module.__name__
        and code.co_argcount + code.co_kwonlyargcount == 0
        and getattr(returned, "__name__", returned) == "FastAPI"
    )
