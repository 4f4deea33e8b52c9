"""A FastAPI application under load: in this process with its lifespan, and a server by its URL."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command, environment

# Its engine is made when it starts, and is in the state of each request.
APP = """
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "http_order"
    id: Mapped[int] = mapped_column(primary_key=True)


class Line(Base):
    __tablename__ = "http_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id))
    order: Mapped[Order] = relationship()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    engine = create_async_engine(os.environ["SHOP_DATABASE_URL"], pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all([Line(id=n, order=Order(id=n)) for n in range(1, 11)])
        await session.commit()
    yield {"engine": engine}
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def opened(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(request.state.engine) as session:
        yield session


Opened = Annotated[AsyncSession, Depends(opened)]


@app.get("/orders/{order_id}/lines")
async def lines(order_id: int, session: Opened) -> list[int]:
    found = await session.scalars(select(Line.id).where(Line.order_id == order_id))
    return list(found)


@app.get("/lines")
async def all_lines(session: Opened) -> list[int]:
    found = (await session.scalars(select(Line))).all()
    return [(await session.get(Order, line.order_id)).id for line in found]


@app.get("/broken/{kind}")
async def broken(kind: str) -> None:
    raise HTTPException(503 if kind == "server" else 404)
"""
OPERATIONS = """
@workload.operation("GET /orders/{order_id}/lines", weight=4, kind="read", tags={"area": "orders"})
async def lines(op: OperationContext) -> httpx.Response:
    answer = await op.shared.get(f"/orders/{op.rng.randint(1, 10)}/lines")
    op.check("GET /orders/{order_id}/lines is 200", answer.status_code == 200)
    return answer


@workload.operation("GET /lines", weight=4, kind="read")
async def all_lines(op: OperationContext) -> httpx.Response:
    return await op.shared.get("/lines")


@workload.operation("GET /broken/{kind}, <500>", kind="read")
async def broken(op: OperationContext) -> httpx.Response:
    return await op.shared.get("/broken/server")


@workload.operation("GET /broken/{kind}, 404", kind="read")
async def missing(op: OperationContext) -> httpx.Response:
    return await op.shared.get("/broken/client")
"""
IN_PROCESS = """
import httpx
from async_loader import Lifespan, OperationContext, Workload
from app import app

workload, lifespan = Workload("api"), Lifespan(app)

@workload.setup
async def connect() -> httpx.AsyncClient:
    await lifespan.start()
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=lifespan), base_url="http://app")

@workload.teardown
async def disconnect(shared: httpx.AsyncClient) -> None:
    await shared.aclose()
    await lifespan.stop()
"""
BY_URL = """
import httpx
from async_loader import OperationContext, Workload

workload = Workload("api")
url = workload.argument("url", type=str)

@workload.setup
async def connect() -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url.value)

@workload.teardown
async def disconnect(shared: httpx.AsyncClient | None) -> None:
    if shared is not None:
        await shared.aclose()
"""
LINES, BROKEN = "GET /orders/{order_id}/lines", "GET /broken/{kind}, <500>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "in_process.py").write_text(IN_PROCESS + OPERATIONS)
    (tmp_path / "by_url.py").write_text(BY_URL + OPERATIONS)
    return tmp_path


def load(command: Command, url: str, *argv: str) -> dict[str, Any]:
    """Return the result of a load of which a tenth fails, as it should."""
    done = command(
        *argv, "--ops", "200", "--max-error-rate", "25%", "--progress", "none", "--out", "json=-",
        "--concurrency", "6", SHOP_DATABASE_URL=url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_in_process_each_route_has_its_statements_waits_and_n_plus_one(
    command: Command, database_url: str, folder: Path
) -> None:
    found = load(
        command, database_url, "-w", "in_process.py",
        "--threshold", f"statements{{op:{LINES}}}:max==1",
        "--threshold", "errors{area:orders}:rate==0",
        "--threshold", f"errors{{op:{BROKEN}}}:rate==100%",
        "--threshold", f"checks{{op:{LINES} is 200}}:rate==100%",
        "--out", "sarif=gate.sarif", "--out", "codequality=gate.json",
        "--junit", "gate.xml", "--html", "gate.html", "--out", "markdown=gate.md",
    )  # fmt: skip
    lines, every = found["by_operation"][LINES], found["by_operation"]["GET /lines"]
    assert lines["statements"]["mean"] == 1
    assert every["statements"]["mean"] == 11
    assert every["time_split_ms"]["pool_wait"]["max"] > 0, "two connections for six users"
    (repeat,) = found["repeated_statements"]
    number = next(n for n, line in enumerate(APP.splitlines(), 1) if "session.get(Order" in line)
    assert (repeat["operation"], repeat["most"]) == ("GET /lines", 10)
    assert repeat["source"].startswith(f"app.py:{number} in ")
    (quality,) = json.loads((folder / "gate.json").read_text())
    assert quality["location"] == {"path": "app.py", "lines": {"begin": number}}
    (sarif,) = json.loads((folder / "gate.sarif").read_text())["runs"][0]["results"]
    assert sarif["partialFingerprints"]["asyncLoader/v1"] == quality["fingerprint"]
    assert found["by_operation"][BROKEN]["failed"] == found["operations"]["failed"] > 0
    assert found["by_operation"]["GET /broken/{kind}, 404"]["failed"] == 0, "an answer all the same"
    assert found["errors"]["HTTP 503"]["by_operation"] == {BROKEN: found["operations"]["failed"]}
    names = {case.get("name") for case in ET.parse(folder / "gate.xml").iter("testcase")}
    assert f"statements{{op:{LINES}}}:max==1" in names
    assert "{order_id}" in (folder / "gate.md").read_text().replace("\\", "")
    assert "GET /broken/{kind}, \\u003c500" in (folder / "gate.html").read_text() or (
        "GET /broken/{kind}, &lt;500" in (folder / "gate.html").read_text()
    )


def test_routes_are_held_against_a_baseline(
    command: Command, database_url: str, folder: Path
) -> None:
    (folder / "main.json").write_text(
        json.dumps(load(command, database_url, "-w", "in_process.py"))
    )
    figure = f"op_duration{{op:{LINES}}}:med:500%"
    done = command("-w", "in_process.py", "--ops", "200", "--max-error-rate", "25%",
                   "--baseline", "main.json", "--compare-fail", figure, "--out", "json=-",
                   SHOP_DATABASE_URL=database_url)  # fmt: skip
    (change,) = json.loads(done.stdout)["baseline"]["changes"]
    assert change["check"] == figure
    assert change["before"] > 0
    assert change["now"] > 0


@contextmanager
def served(folder: Path, url: str) -> Iterator[str]:
    """Serve the application, as its owner does; yield its URL."""
    options = ("--port", "0", "--log-level", "info", "--no-access-log")
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", *options],
        cwd=folder,
        env=environment(SHOP_DATABASE_URL=url),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        said = next(line for line in server.stderr if "running on" in line)
        yield said.split("running on ")[1].split()[0]
    finally:
        server.terminate()
        server.communicate()


def test_a_server_by_its_url(command: Command, database_url: str, folder: Path) -> None:
    """What happens in the server is not seen: of it there are no figures, not zeros."""
    with served(folder, database_url) as url:
        found = load(command, database_url, "-w", "by_url.py", "--arg", f"url={url}")
    assert found["by_operation"][LINES]["failed"] == 0
    assert found["by_operation"][BROKEN]["failed"] == found["operations"]["failed"] > 0
    assert found["pool"] is None
    assert found["server_side"] is None
    assert found["repeated_statements"] == []
    done = command("-w", "by_url.py", "--ops", "20", "--arg", "url=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "connection refused" in done.stdout.lower()
    assert "Traceback" not in done.stderr
