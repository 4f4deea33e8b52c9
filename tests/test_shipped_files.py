"""The files beside the package: they say what the code does."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from async_loader.settings.run import RunSettings
from async_loader.settings.sources import load
from async_loader.settings.spec import shown
from async_loader.workers.cluster import cluster_address

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "config").glob("*.toml"))


@pytest.fixture
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_shipped_configurations() -> None:
    assert [path.stem for path in CONFIGS] == ["default", "release", "smoke"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_loads_and_takes_effect(path: Path) -> None:
    settings = load(["--config", str(path)])
    for key in tomllib.loads(path.read_text()):
        assert key in settings.model_fields_set


def test_the_default_configuration_is_the_defaults() -> None:
    settings, defaults = load(["--config", str(ROOT / "config/default.toml")]), load([])
    assert isinstance(settings, RunSettings)
    assert isinstance(defaults, RunSettings)
    assert shown(settings) == shown(defaults)


def test_the_default_configuration_names_every_option() -> None:
    text = (ROOT / "config/default.toml").read_text()
    for name in RunSettings.model_fields.keys() - {"config", "debug"}:
        assert f"\n{name} = " in text or f"\n# {name} = " in text, name


def test_compose_brings_a_postgres_18_with_room_and_a_health_check(
    compose: dict[str, Any],
) -> None:
    postgres = compose["services"]["postgres"]
    assert postgres["image"] == "postgres:18"
    assert "max_connections=2000" in postgres["command"]
    assert "pg_isready" in postgres["healthcheck"]["test"][1]
    assert all(port.startswith("127.0.0.1:") for port in postgres["ports"])


def test_compose_runs_the_runner_once_the_server_is_healthy(compose: dict[str, Any]) -> None:
    runner = compose["services"]["runner"]
    assert runner["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    names = {name.removeprefix("ASYNC_LOADER_").lower() for name in runner["environment"]}
    assert names <= set(RunSettings.model_fields)
    assert "ENTRYPOINT" in runner["build"]["dockerfile_inline"]


def test_compose_has_a_cluster_of_the_runners_image(compose: dict[str, Any]) -> None:
    runner, scheduler, worker = (compose["services"][n] for n in ("runner", "scheduler", "worker"))
    assert scheduler["build"] == worker["build"] == runner["build"]
    assert scheduler["profiles"] == worker["profiles"] == ["cluster"]
    assert worker["deploy"]["replicas"] == 2
    address = worker["entrypoint"][2]
    assert cluster_address(address) == "tcp://scheduler:8786"
    assert not any("ports" in service for service in (scheduler, worker))


def test_no_file_names_a_place_of_one_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    forbidden = ["/".join(["", "root", ""]), "pypi" + ".org", "files." + "pythonhosted"]
    guilty = [
        (name, word)
        for name in listed
        if (ROOT / name).is_file()
        for word in forbidden
        if word in (ROOT / name).read_text(errors="replace")
    ]
    assert guilty == []
