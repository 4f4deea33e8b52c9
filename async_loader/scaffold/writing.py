"""The load test of a project, as a file of Python."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from .project import Name, Project
from .reading import creating, imports_of, reading
from .routes import routes_of

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class LoadTestFile:
    """The text of a load test, and how many operations it has; `left` are those it has not."""

    text: str
    operations: int
    left: tuple[str, ...] = ()


def load_test_of(project: Project, name: str) -> LoadTestFile:
    """Return a load test: of the routes where there is an application, else of the models."""
    if project.app is not None:
        written = _of_routes(project, project.app, name)
        if written.operations or not project.models:
            return written
    return _of_models(project, name)


def _of_routes(project: Project, app: Name, name: str) -> LoadTestFile:
    made = app.value() if project.is_factory else app.value
    routes = routes_of(made)
    written = [route for route in routes if route.is_written]
    imported = [Name(app.module, app.name, None), *_sessions_imported(project)]
    ours = ["Lifespan", "OperationContext", "Workload"] if written else ["Lifespan", "Workload"]
    parts = [
        f'"""Asks {app} in this process: routing and dependencies are the real ones."""',
        _imports(["import httpx"], _third(project, [], ours), imported),
        f'workload = Workload("{name}")\n'
        f"lifespan = Lifespan({app.name}{'()' if project.is_factory else ''})\n",
        *_sessions(project),
        "@workload.setup\n"
        "async def connect() -> httpx.AsyncClient:\n"
        "    await lifespan.start()\n"
        "    transport = httpx.ASGITransport(app=lifespan)\n"
        '    return httpx.AsyncClient(transport=transport, base_url="http://app")\n',
        "@workload.teardown\n"
        "async def disconnect(shared: httpx.AsyncClient | None) -> None:\n"
        "    if shared is not None:\n"
        "        await shared.aclose()\n"
        "    await lifespan.stop()\n",
        *(route.text for route in routes),
    ]
    left = tuple(route.name for route in routes if not route.is_written)
    return LoadTestFile(_file(parts), len(written), left)


def _of_models(project: Project, name: str) -> LoadTestFile:
    own_schema = project.sessions is None and project.engine is None
    names = _unambiguous(project.models)
    operations = [reading(model.value, names[model]) for model in project.models]
    left = []
    for model in project.models if own_schema else ():
        if (text := creating(model.value, names[model])) is not None:
            operations.append(text)
        else:
            left.append(f"create {names[model]}")
    body = "".join(operations)
    imported = [Name(model.module, _as(model, names), None) for model in project.models]
    used = ["AsyncSession", "async_sessionmaker"] if own_schema else ["AsyncSession"]
    about = "on tables of its own" if own_schema else "through the application's own sessions"
    ours = ["OperationContext", "Workload"] if "op: OperationContext" in body else ["Workload"]
    parts = [
        f'"""Reads what is mapped, {about}. Replace it by what matters."""',
        _imports(
            [],
            [*imports_of(body), ("sqlalchemy", "select"), *_third(project, used, ours)],
            [*imported, *_sessions_imported(project)],
        ),
        f'workload = Workload("{name}")\n',
        *([_tables(project, names)] if own_schema else _sessions(project)),
        *operations,
    ]
    return LoadTestFile(_file(parts), len(operations), tuple(left))


def _tables(project: Project, names: dict[Name, str]) -> str:
    """Return the set-up that makes the tables."""
    of = {id(model.value.metadata): names[model] for model in reversed(project.models)}
    lines = "".join(
        f"        await connection.run_sync({name}.metadata.create_all)\n"
        for name in reversed(of.values())
    )
    return (
        "@workload.setup\n"
        "async def make_tables(sessions: async_sessionmaker[AsyncSession]) -> None:\n"
        "    async with sessions.begin() as session:\n"
        "        connection = await session.connection()\n"
        f"{lines}"
    )


def _sessions(project: Project) -> list[str]:
    """Return the function that returns the application's sessions, where they were found."""
    if project.sessions is not None:
        returned = project.sessions.name
    elif project.engine is not None:
        returned = f"async_sessionmaker({project.engine.name}, expire_on_commit=False)"
    else:
        return []
    return [
        "@workload.sessions\n"
        "def sessions() -> object:  # what makes the application's sessions\n"
        f"    return {returned}\n"
    ]


def _sessions_imported(project: Project) -> list[Name]:
    return [found] if (found := project.sessions or project.engine) is not None else []


def _third(project: Project, names: list[str], ours: list[str]) -> list[tuple[str, str]]:
    """Return what is imported of SQLAlchemy and of ours."""
    if project.sessions is None and project.engine is not None:
        names = [*names, "async_sessionmaker"]
    of_sqlalchemy = [("sqlalchemy.ext.asyncio", name) for name in names]
    return [*of_sqlalchemy, *(("async_loader", name) for name in ours)]


def _imports(plain: list[str], names: list[tuple[str, str]], theirs: Iterable[Name]) -> str:
    """Return the imports as they are usually sorted: Python's own, others', the project's."""
    standard = [pair for pair in names if pair[0] in sys.stdlib_module_names]
    others = [pair for pair in names if pair not in standard]
    groups = [
        _sorted(standard),
        [*plain, *_sorted(others)],
        _sorted([(name.module, name.name) for name in theirs]),
    ]
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def _sorted(names: list[tuple[str, str]]) -> list[str]:
    modules: dict[str, set[str]] = {}
    for module, name in names:
        modules.setdefault(module, set()).add(name)
    return [_import(module, sorted(modules[module], key=_by_kind)) for module in sorted(modules)]


def _by_kind(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def _unambiguous(models: list[Name]) -> dict[Name, str]:
    """Return by which name each class is known in the file: two modules may use one."""
    names: dict[Name, str] = {}
    for model in models:
        name, number = model.name, 2
        while name in names.values():
            name, number = f"{model.name}{number}", number + 1
        names[model] = name
    return names


def _as(model: Name, names: dict[Name, str]) -> str:
    return model.name if names[model] == model.name else f"{model.name} as {names[model]}"


def _file(parts: Iterable[str]) -> str:
    """Return the parts as a file: two blank lines before what is defined, one before the rest."""
    text = ""
    for part in parts:
        between = "\n\n" if part.startswith(("@", "# ")) else "\n"
        text += (between if text else "") + part.rstrip("\n") + "\n"
    return text
