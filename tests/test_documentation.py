"""Every command and snippet of README and docs runs, on fewer operations and a database of ours."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import yaml

from async_loader.ingest.demo import make_pairs
from async_loader.settings.sources import COMMANDS
from tests.acceptance.conftest import environment
from tests.forked import Forks
from tests.service.process import ServiceProcess, service_process

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
EXAMPLES = ROOT / "tests" / "examples"
NAMED = re.compile(r"# ([\w/]+\.py)\n")
PLACEHOLDER = r"postgresql(\+asyncpg)?://user@host:5432/database"


def blocks(language: str) -> list[str]:
    """Return the blocks of a language on all pages, each once."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)
    return list(dict.fromkeys(found))


COMMAND_LINES = list(
    dict.fromkeys(
        line.removeprefix("$ ").split("  #")[0].strip()
        for block in blocks("console")
        for line in block.splitlines()
    )
)
LOADER = "async_loader"
for block in blocks("yaml"):
    for step in found if isinstance(found := yaml.safe_load(block), list) else ():
        script = step["run"].replace("\\\n", " ")
        COMMAND_LINES += [line for line in script.splitlines() if LOADER in line]
# Commands that take no number of operations, and those that take no database.
OTHERS = {n.split()[0] for n, model in COMMANDS.items() if "ops" not in model.model_fields}
OFFLINE = {n for n, model in COMMANDS.items() if "database_url" not in model.model_fields}
# Results that an earlier line of the documentation wrote, or another day's run.
SAVED = ("this.json", "main.json")


def arguments(line: str, database_url: str) -> list[str]:
    """Return the arguments that a line gives the command, with less to do."""
    words = shlex.split(line.rsplit("&&", maxsplit=1)[-1])
    words = words[words.index(LOADER) + 1 :]
    small = [re.sub(r"^\d{4,}$", "100", re.sub(r"^(30|5)s$", "300ms", word)) for word in words]
    small = [re.sub(r"^[1-9]\d*[sm]:", "300ms:", word) for word in small]
    small = [re.sub(PLACEHOLDER, lambda _: database_url, word) for word in small]
    if "--rounds" in small and "--out" not in small:
        small[small.index("--rounds") + 1] = "1"
    small = ["local:2" if word.startswith("tcp:") else word for word in small]
    small = [str(ROOT / word) if word.startswith("config/") else word for word in small]
    if not {"--ops", "--duration", "--stage"} & set(small) and small[0] not in OTHERS:
        small += ["--ops", "100"]
    if "config/release.toml" in line:
        small += ["--warmup", "10"]
    if "derive-chords" in small:
        small += ["--arg", "songs=1500"]
    if small[0] in OFFLINE or " ".join(small[:2]) in OFFLINE:
        return small
    if not any("--database-url" in word or word in ("--help", "noop") for word in small):
        small += ["--database-url", database_url]
    return small


# What the snippets have beside them.
USERS = "email,age\n" + "".join(f"user{number}@example.org,30\n" for number in range(100))


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved result."""
    path = tmp_path_factory.mktemp("saved") / "result.json"
    argv = ["--workload", "noop", "--ops", "10", "--out", f"json={path}"]
    subprocess.run([sys.executable, "-m", LOADER, *argv], check=True, env=environment())
    return path.read_text()


@pytest.fixture
def folder(tmp_path: Path, result: str) -> Path:
    """A folder with the files that snippets name in their first line, and saved results."""
    for name in SAVED:
        (tmp_path / name).write_text(result)
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "users.csv").write_text(USERS)
    make_pairs(tmp_path / "music", 5, audio=3_000, side=60)
    for snippet in blocks("python"):
        if named := NAMED.match(snippet):
            (tmp_path / named[1]).write_text(snippet)
    return tmp_path


# Commands that go on until they are told to end.
LASTING = [line for line in COMMAND_LINES if "--config-dir" in line]


@pytest.mark.parametrize(
    "line", [line for line in COMMAND_LINES if LOADER in line and line not in LASTING]
)
def test_commands_run(line: str, database_url: str, folder: Path, forking: Forks) -> None:
    env = environment(SHOP_DATABASE_URL=database_url)
    if line.endswith(" init"):  # nobody has one who asks for it
        (folder / "loadtest.py").unlink()
    done = forking.run(arguments(line, database_url), cwd=folder, env=env, timeout=100)
    # With less to do, a part of what is asked may rest on too little to be measured.
    assert done.returncode in (0, 112), done.stderr


@pytest.mark.parametrize("line", LASTING)
def test_the_service_answers_the_requests(line: str, database_url: str, folder: Path) -> None:
    history = f"sqlite:///{folder / 'history.sqlite'}"
    argv = [*arguments(line, database_url)[1:], "--history-url", history]
    lines = "".join(blocks("sh")).splitlines()
    requests = [shlex.split(request) for request in lines if request.startswith("curl ")]
    assert len(requests) == 6
    with service_process(folder, *argv) as service:
        if "--target" not in argv:
            return
        for _curl, *words in requests:
            answer = requested(service, words)
            assert answer.is_success, (words, answer.text)


def requested(service: ServiceProcess, words: list[str]) -> httpx.Response:
    """Do what curl does with these words."""
    options, path = words[:-1], words[-1].removeprefix("http://127.0.0.1:8642")
    values = dict(pairwise(options))
    if "-d" in values:
        return service.client.post(path, json=json.loads(values["-d"]))
    return service.client.get(path)


def is_of_the_example(snippet: str) -> bool:
    """Whether it is a file of the example: part of a package, which the commands run."""
    named = NAMED.match(snippet)
    return named is not None and "/" in named[1]


@pytest.mark.parametrize("snippet", [s for s in blocks("python") if is_of_the_example(s)])
def test_the_example_is_what_the_files_have(snippet: str) -> None:
    named = NAMED.match(snippet)
    assert named is not None
    assert (EXAMPLES / named[1]).read_text() == snippet


@pytest.mark.parametrize(
    "snippet",
    [s for s in blocks("python") if not is_of_the_example(s) and not s.startswith("# test_")],
)
def test_snippets_run(snippet: str, database_url: str, tmp_path: Path) -> None:
    script = re.sub(PLACEHOLDER, lambda _: database_url, snippet)
    (tmp_path / "users.csv").write_text(USERS)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment())


@pytest.mark.parametrize("snippet", [s for s in blocks("python") if s.startswith("# test_")])
def test_tests_pass(snippet: str, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(re.sub(PLACEHOLDER, lambda _: database_url, snippet))
    env = environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ("-p", "async_loader.testing.plugin", "-p", "pytest_asyncio.plugin")
    options = ("-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-c", "/dev/null")
    command = [sys.executable, "-m", "pytest", *plugins, *options, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, "test_it.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_line_of_a_console_block_is_a_command_that_is_tested() -> None:
    others = [line for line in COMMAND_LINES if LOADER not in line]
    assert others == [COMMAND_LINES[1]]
    ci = (ROOT / ".ci" / "run").read_text().replace('"$python"', "python3")
    for step in others[0].replace("pip install", "pip install -q").split(" && "):
        assert step in ci


def test_the_compose_commands_name_services_of_the_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    commands = re.findall(r"`docker compose ([^`]+)`", TEXT)
    assert commands
    for command in commands:
        assert services.keys() & set(command.split())


def test_the_cluster_for_kubernetes_can_be_read() -> None:
    found = [yaml.safe_load(block) for block in blocks("yaml")]
    (cluster,) = [block for block in found if isinstance(block, dict)]
    containers = [
        cluster["spec"][part]["spec"]["containers"][0] for part in ("scheduler", "worker")
    ]
    assert containers[0]["image"] == containers[1]["image"]
    assert cluster["spec"]["scheduler"]["service"]["ports"][0]["port"] == 8786


def test_flags_that_are_named_exist() -> None:
    known = {f"--{name.replace('_', '-')}" for m in COMMANDS.values() for name in m.model_fields}
    known |= {flag.replace("--", "--no-") for flag in known} | {"--help", "--rm", "--profile"}
    known |= {"--nthreads", "--nworkers", "--name", "--no-dashboard"}  # of Dask's workers
    known.add("--sql")  # of Alembic's upgrade
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) <= known


def test_the_front_door_can_be_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).is_file(), (page, link)
