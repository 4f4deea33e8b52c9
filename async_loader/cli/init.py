"""The command `init`: a first load test for the project in this folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigurationError
from ..runtime.outputs import DONE
from ..runtime.streams import stdout
from ..scaffold.pipeline import ci_of
from ..scaffold.project import Project, look
from ..scaffold.writing import load_test_of
from ..settings.init import InitSettings


def run_init(settings: InitSettings) -> int:
    """Write what is not there yet, and say what was found, written and left."""
    folder, file = Path.cwd(), settings.file
    if file.suffix != ".py":
        raise ConfigurationError(f"--file {file}: a load test is a file of Python, as loadtest.py")
    if file.exists():
        raise ConfigurationError(f"{file} is there already, and stays: give --file another name")
    project = look(folder)
    written = load_test_of(project, folder.name or "project")
    lines = [f"found    {what}" for what in _found(project)]
    _write(file, written.text)
    lines.append(f"wrote    {file}: {_number(written.operations, 'operation')}")
    lines += [f"left     {name}: it takes what only you know" for name in written.left]
    needs = "httpx" if "import httpx" in written.text else ""
    if (pipeline := ci_of(folder, settings.ci, file.as_posix(), needs)) is not None:
        path, text = pipeline
        shown = path.relative_to(folder)
        if path.exists():
            lines.append(f"left     {shown}: it is there already")
        else:
            _write(path, text)
            lines.append(f"wrote    {shown}")
    if needs and find_spec(needs) is None:
        lines.append(f"needs    pip install {needs}")
    lines.append(f"next     async_loader -w {file} --ops 2000")
    stdout().write("\n".join(lines) + "\n")
    stdout().flush()
    return DONE


def _found(project: Project) -> list[str]:
    found = []
    if project.models:
        modules = ", ".join(dict.fromkeys(model.module for model in project.models))
        found.append(
            f"{_number(len(project.models), 'mapped class', 'mapped classes')} in {modules}"
        )
    for what, name in (("sessions", project.sessions), ("application", project.app)):
        if name is not None:
            found.append(f"{what} {name}")
    if project.sessions is None:
        engine = project.engine
        found.append(
            f"engine {engine}"
            if engine
            else "no session factory: the run makes sessions of its own"
        )
    return found


def _number(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
