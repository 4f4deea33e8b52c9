"""The GitHub Action of the repository: its steps, as a runner would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, environment

ACTION = yaml.safe_load((ROOT / ".github/actions/load-gate/action.yml").read_text())
GATE = next(step for step in ACTION["runs"]["steps"] if step.get("name") == "Load gate")
WORKLOAD = """
from async_loader import Workload
workload = Workload("shop")

@workload.operation("nothing", kind="read")
async def nothing() -> None: ...
"""


def gate(folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the step with these inputs, and the defaults of the others."""
    given: dict[str, Any] = {name: one["default"] for name, one in ACTION["inputs"].items()}
    given |= inputs
    variables = {
        name: given[value.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, value in GATE["env"].items()
    }
    summary = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        [sys.executable, "-c", GATE["run"]],
        cwd=folder,
        env=environment(**variables, **summary),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "loadtest.py").write_text(WORKLOAD)
    return tmp_path


def test_it_passes_fails_and_leaves_its_files(folder: Path) -> None:
    done = gate(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "load-gate.xml").exists()
    assert json.loads((folder / "load-gate.sarif").read_text())["runs"][0]["results"] == []
    assert "shop" in (folder / "summary.md").read_text()
    assert gate(folder, options="--ops 100 --threshold 'ops:count<1'").returncode == 99


def test_an_input_is_an_argument_and_no_command(folder: Path) -> None:
    wanted = "--ops 10; touch stolen $(touch stolen) `touch stolen`"
    assert gate(folder, options=wanted).returncode == 104
    assert gate(folder, workload="loadtest.py; touch stolen").returncode != 0
    assert not (folder / "stolen").exists()


def test_inputs_reach_scripts_by_variables_alone() -> None:
    """An expression in a script is text that anybody may have written."""
    assert not [step for step in ACTION["runs"]["steps"] if "${{" in step.get("run", "")]
