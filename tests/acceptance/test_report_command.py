"""`async_loader report` and `async_loader schema`: saved results, rendered again and described."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from jsonschema import Draft202012Validator

from .conftest import Command

RUN = ["--workload", "noop", "--ops", "50", "--threshold", "ops:count>50"]


def test_a_run_is_rendered_as_it_was(command: Command, tmp_path: Path) -> None:
    run = command(*RUN, "--out", "json=run.json", "--junit", "run.xml", "--out", "markdown=run.md")
    assert run.returncode == 99
    again = command("report", "run.json", "--junit", "again.xml", "--out", "markdown=again.md")
    assert again.returncode == 0, again.stderr
    assert again.stdout == run.stdout
    for form in ("xml", "md"):
        text = (tmp_path / f"again.{form}").read_text()
        assert text == (tmp_path / f"run.{form}").read_text()
    copied = command("report", "run.json", "--out", "json=-")
    assert copied.stdout == (tmp_path / "run.json").read_text()


def test_several_are_side_by_side(command: Command, tmp_path: Path) -> None:
    for name in ("before", "after"):
        assert command(*RUN[:4], "--out", f"json={name}.json").returncode == 0
    ways = ["--modes", "semaphore", "--modes", "chunks", "--rounds", "1"]
    compared = command("compare", *RUN[:4], *ways, "--out", "json=ways.json", "--junit", "ways.xml")
    assert compared.returncode == 0, compared.stderr
    assert len(ET.parse(tmp_path / "ways.xml").getroot()) == 2
    alone = command("report", "ways.json")
    assert alone.stdout == compared.stdout
    done = command("report", "before.json", "after.json", "ways.json", "--out", "markdown=all.md")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[2].strip() for line in (tmp_path / "all.md").read_text().splitlines()
            if line.startswith("| ✅")]  # fmt: skip
    assert rows == ["before", "after", "ways semaphore", "ways chunks"]
    assert "x before" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none.json"], "cannot read none.json: No such file"),
        (["."], "cannot read .: Is a directory"),
        (["text.json"], "is not JSON"),
        (["inserts.json"], "not the result of a run"),
        ([], "required: FILE"),
        (["text.json", "--junit", "no/such/folder.xml"], "cannot write a file there"),
    ],
)
def test_what_is_no_result_is_one_line(
    command: Command, tmp_path: Path, argv: list[str], message: str
) -> None:
    (tmp_path / "text.json").write_text("done")
    (tmp_path / "inserts.json").write_text('{"schema": 1, "measures": []}')
    done = command("report", *argv)
    assert done.returncode == 104
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("async_loader: ")
    assert message in line


def test_the_schema_describes_what_the_commands_write(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    schema = command("schema")
    assert schema.returncode == 0, schema.stderr
    validator = Draft202012Validator(json.loads(schema.stdout))
    argv = ["--ops", "40", "--concurrency", "4", "--database-url", database_url, "--keep-data"]
    assert command(*argv, "--out", "json=run.json").returncode == 0
    assert command(
        "compare", *argv, "--modes", "semaphore", "--modes", "threads", "--rounds", "1",
        "--out", "json=ways.json",
    ).returncode == 0  # fmt: skip
    for name in ("run", "ways"):
        document = json.loads((tmp_path / f"{name}.json").read_text())
        validator.validate(document)
