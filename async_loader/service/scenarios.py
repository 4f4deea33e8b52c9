"""Scenarios: the TOML files of a folder, and a request's bounded changes to one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..settings.run import RunSettings
from ..settings.serve import NAME, ScenarioSettings
from ..settings.sources import Layer, file_layer, settings_of
from .path_redaction import without_folders

# What is the service's own: where a run's data is, and where its results go.
_IGNORED = ("out", "html", "junit", "progress", "config", "debug")
_REFUSED = ("database_url", "server_directory")


class UnknownScenarioError(ConfigurationError):
    """There is no such file."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A file by its name; `problem` says why it cannot be run."""

    name: str
    layer: Layer
    settings: ScenarioSettings | None
    problem: str | None = None

    @property
    def every(self) -> float | None:
        """Seconds from one scheduled run to the next, None without a schedule."""
        return self.settings.every if self.settings else None


def read_scenarios(folder: Path | None) -> dict[str, Scenario]:
    """
    Return what the TOML files of a folder say now, by their names without `.toml`.

    Blocks. Raises `ConfigurationError` for a folder that cannot be read; a file that is wrong
    is a scenario with a `problem`.
    """
    if folder is None:
        return {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except OSError as error:
        raise ConfigurationError(f"--config-dir {folder}: {error.strerror}") from None
    return {path.stem: _read(path) for path in paths if re.fullmatch(NAME, path.stem)}


def _read(path: Path) -> Scenario:
    try:
        layer = file_layer(ScenarioSettings, path)
        layer = Layer({k: v for k, v in layer.values.items() if k not in _IGNORED}, layer.naming)
        settings = settings_of(ScenarioSettings, [layer])
        _refuse_unspeakable(layer)
    except ConfigurationError as error:
        problem = str(error).replace(f"--config {path}", path.name).replace(str(path), path.name)
        return Scenario(path.stem, Layer({}, ""), None, without_folders(problem))
    for name in _REFUSED:
        if name in layer.values:
            problem = f"{name} in {path.name}: a scenario runs on a --target"
            return Scenario(path.stem, Layer({}, ""), None, problem)
    return Scenario(path.stem, layer, settings)


def _refuse_unspeakable(layer: Layer) -> None:
    """Refuse numbers that TOML has and JSON has not: no answer could tell of them."""
    for name, value in layer.values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"{layer.name_of(name)} is not a number that a run can have")


def settings_for(
    scenario: Scenario, overrides: Mapping[str, Any], *, url: str | None, directory: Path | None
) -> RunSettings:
    """
    Return the settings of a run on a target (None: our own server), with a request's overrides.

    Raises `ConfigurationError` in the request's words for what does not go together.
    """
    if scenario.problem is not None:
        raise ConfigurationError(scenario.problem)
    layers = [Layer(dict(overrides), "{key}"), scenario.layer]
    settings = settings_of(ScenarioSettings, layers)
    values = {name: getattr(settings, name) for name in RunSettings.model_fields}
    values |= {
        "database_url": None if url is None else SecretStr(url),
        "server_directory": directory,
        "progress": "none",
    }
    return RunSettings(**values)
