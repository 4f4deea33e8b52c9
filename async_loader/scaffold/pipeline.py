"""A file for a project's CI that runs its load test."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Ci = Literal["auto", "github", "gitlab", "none"]

_GITHUB = """\
name: load gate

on: [push, pull_request]

permissions:
  contents: read

jobs:
  load-gate:
    runs-on: ubuntu-latest
    timeout-minutes: 15
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: {install}
      - name: Load gate
        run: {run}
"""
_GITLAB = """\
# In .gitlab-ci.yml:  include: {path}
load gate:
  image: python:3.12
  timeout: 15m
  script:
    - {install}
    - {run}
  artifacts:
    when: always
    reports:
      junit: gate.xml
      codequality: findings.json
"""


def ci_of(folder: Path, ci: Ci, target: str, needs: str) -> tuple[Path, str] | None:
    """Return the file for CI and its text; None where none is wanted. `needs`: what to install."""
    if ci == "auto":
        ci = "gitlab" if (folder / ".gitlab-ci.yml").exists() else "github"
    if ci == "none":
        return None
    installed = [_requirements(folder), "'async_loader[cli,embedded]'", needs]
    install = f"pip install {' '.join(filter(None, installed))}"
    run = (
        f"async_loader -w {target} --ops 2000 --threshold 'errors:rate<1%' "
        f"--junit gate.xml{' --out codequality=findings.json' if ci == 'gitlab' else ''}"
    )
    if ci == "github":
        path = folder / ".github" / "workflows" / "load-gate.yml"
        return path, _GITHUB.format(install=install, run=run)
    path = folder / "load-gate.gitlab-ci.yml"
    return path, _GITLAB.format(install=install, run=run, path=path.name)


def _requirements(folder: Path) -> str:
    """Return what `pip install` makes the project of."""
    if (folder / "requirements.txt").exists():
        return "-r requirements.txt"
    return "." if (folder / "pyproject.toml").exists() or (folder / "setup.py").exists() else ""
