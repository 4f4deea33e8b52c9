"""`async_loader init`: a load test that runs at once, of what a project has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.examples.shop.models import Base

from .conftest import ROOT, Command

MODELS = """
from __future__ import annotations
import datetime, decimal, enum, uuid
from sqlalchemy import DateTime, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship

class Base(DeclarativeBase): ...
class Other(MappedAsDataclass, DeclarativeBase): ...

class Colour(enum.Enum):
    red = 1

class UserAccount(Base):
    __tablename__ = "user_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(40), unique=True)
    code: Mapped[str] = mapped_column(String(8))
    colour: Mapped[Colour]
    since: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True))
    day: Mapped[datetime.date]
    naive: Mapped[datetime.datetime]
    balance: Mapped[decimal.Decimal]
    active: Mapped[bool]
    note: Mapped[str | None]
    kind: Mapped[str] = mapped_column(default="plain")
    type: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "user"}

class Admin(UserAccount):
    __tablename__ = "admin"
    id: Mapped[int] = mapped_column(ForeignKey(UserAccount.id), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "admin"}

class Ticket(Base):
    __tablename__ = "ticket"
    owner_id: Mapped[int] = mapped_column(ForeignKey(UserAccount.id))
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)

class Setting(Other):
    __tablename__ = "setting"
    name: Mapped[str] = mapped_column(primary_key=True)
    extra: Mapped[str | None] = mapped_column(default=None)
"""

API = """
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
import anyio
from fastapi import FastAPI, Header, Request

class Kind(str, Enum):
    small = "small"

@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    async with anyio.create_task_group() as group:  # it is left in the task that entered it
        group.start_soon(anyio.sleep, 0)
        yield {"greeting": "hello"}
    open("stopped", "w").close()

def create_app() -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request) -> dict[str, str]:
        return {"said": request.state.greeting}

    @app.get("/items/{item_id}/{kind}")
    async def item(item_id: int, kind: Kind, q: str, page: int = 1) -> dict[str, str]:
        return {"item": f"{item_id} {kind.value} {q}"}

    @app.get("/secret")
    async def secret(token: str = Header()) -> None: ...

    @app.post("/items")
    async def add(name: str) -> None: ...

    return app
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What is found but not looked at, in any project."""
    for name in ("tests/test_it.py", "venv/lib.py", ".hidden/models.py", "broken.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("from sqlalchemy.orm import DeclarativeBase = 1\nraise 1\n")
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    mine = "from async_loader import Workload\nfrom fastapi import FastAPI\nraise FastAPI\n"
    (tmp_path / "mine.py").write_text(mine)
    return tmp_path


def loaded(command: Command, url: str, *argv: str, **env: str) -> dict[str, Any]:
    """Run the load test that was written; every operation of it has to do its work."""
    database = ("--database-url", url) if not env else ()
    done = command(
        "-w", "loadtest.py", "--ops", "120", "--concurrency", "4", "--out", "json=-", *database,
        *argv, **env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["operations"]["completed"] == 120, found["errors"]
    assert all(check["failed"] == 0 for check in found["checks"].values())
    return found


def test_of_models_alone(command: Command, database_url: str, project: Path) -> None:
    package = project / "shop"
    package.mkdir()
    (package / "models.py").write_text(MODELS)
    done = command("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "found    4 mapped classes in shop.models",
        "found    no session factory: the run makes sessions of its own",
        "wrote    loadtest.py: 6 operations",
        "left     create Admin: it takes what only you know",
        "left     create Ticket: it takes what only you know",
        "wrote    .github/workflows/load-gate.yml",
        "next     async_loader -w loadtest.py --ops 2000",
    ]
    found = loaded(command, database_url)
    assert set(found["by_operation"]) == {
        "read UserAccount", "read Admin", "read Ticket", "read Setting", "create UserAccount",
        "create Setting",
    }  # fmt: skip
    assert well_written(project / "loadtest.py")
    checker = Path(sys.executable).with_name("check-jsonschema")
    workflow = project / ".github" / "workflows" / "load-gate.yml"
    schema = ("--builtin-schema", "vendor.github-workflows")
    subprocess.run([checker, *schema, workflow], check=True)


def well_written(file: Path) -> bool:
    """Whether it is as a formatter and a linter would have it."""
    ruff = Path(sys.executable).with_name("ruff")
    for words in (("format", "--check", "--diff"), ("check", "--select", "E,F,I,W")):
        options = ("--isolated", "--line-length", "100", file)
        subprocess.run([ruff, *words, *options], check=True, cwd=file.parent)
    return True


async def test_through_the_applications_sessions(
    command: Command, database_url: str, engine: AsyncEngine, project: Path
) -> None:
    """An application with routes: its pool is watched, and nothing of it is written."""
    shutil.copytree(ROOT / "tests" / "examples" / "shop", project / "shop")
    for name in ("api_loadtest.py", "loadtest.py"):
        (project / "shop" / name).unlink()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    done = command("init", "--ci", "none", SHOP_DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert (
        "found    sessions shop.database:Session\nfound    application shop.api:app" in done.stdout
    )
    assert "left     POST /orders: it takes what only you know" in done.stdout
    found = loaded(command, database_url, SHOP_DATABASE_URL=database_url)
    assert set(found["by_operation"]) == {"GET /products"}
    assert found["by_operation"]["GET /products"]["statements"]["mean"] == 1
    assert found["pool"]["size"] == 20
    assert well_written(project / "loadtest.py")

    (project / "shop" / "api.py").unlink()
    assert command("init", "--file", "models.py", SHOP_DATABASE_URL=database_url).returncode == 0
    done = command("-w", "models.py", "--ops", "50", SHOP_DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert "read Customer" in done.stdout
    assert "create" not in (project / "models.py").read_text(), "into nobody's tables"
    assert well_written(project / "models.py")


def test_of_an_application_that_a_function_makes(
    command: Command, database_url: str, project: Path
) -> None:
    """With its lifespan, in routes that have braces and slashes in their names."""
    (project / "api.py").write_text(API)
    (project / ".gitlab-ci.yml").touch()
    done = command("init")
    assert done.returncode == 0, done.stderr
    assert "wrote    load-gate.gitlab-ci.yml" in done.stdout
    assert "left     GET /secret: it takes what only you know" in done.stdout
    name = "GET /items/{item_id}/{kind}"
    found = loaded(command, database_url, "--threshold", f"op_duration{{op:{name}}}:med<5s")
    assert set(found["by_operation"]) == {"GET /", name}
    assert (project / "stopped").exists(), "the lifespan ended"
    assert well_written(project / "loadtest.py")


def test_it_overwrites_nothing(command: Command, project: Path) -> None:
    (project / "api.py").write_text(API)
    (project / "loadtest.py").write_text("mine")
    done = command("init")
    assert (done.returncode, done.stdout) == (104, "")
    assert "loadtest.py is there already, and stays: give --file another name" in done.stderr
    workflow = project / ".github" / "workflows" / "load-gate.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("mine")
    done = command("init", "--file", "other.py")
    assert "left     .github/workflows/load-gate.yml: it is there already" in done.stdout
    assert (project / "loadtest.py").read_text() == workflow.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("x = 1", 104, "no mapped class and no FastAPI application in the 3 Python files here: "),
        (
            "from fastapi import FastAPI\nimport nowhere\nFastAPI()",
            107,
            "No module named 'nowhere'",
        ),
        (
            "from sqlalchemy.orm import mapped_column\nmapped_column(1 / 0)",
            107,
            "ZeroDivisionError",
        ),
    ],
)
def test_what_it_cannot_use_is_one_line(
    text: str, code: int, said: str, command: Command, project: Path
) -> None:
    (project / "app.py").write_text(text)
    done = command("init")
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (project / "loadtest.py").exists()
