"""URLs, and what a user is told of a database that cannot be used."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import ConfigurationError, DatabaseError
from async_loader.database.postgresql import create_engine, parse_url, probe, redact
from async_loader.postgres import EmbeddedServer


@pytest.mark.parametrize(
    "url",
    ["postgresql://u@h:5433/d", "postgres://u@h:5433/d", "postgresql+asyncpg://u@h:5433/d"],
)
def test_urls_are_for_asyncpg(url: str) -> None:
    assert str(parse_url(url)) == "postgresql+asyncpg://u@h:5433/d"


def test_libpq_parameters_are_understood() -> None:
    url = parse_url("postgresql://h/d?sslmode=require&connect_timeout=3&application_name=x")
    assert dict(url.query) == {"ssl": "require", "timeout": "3", "application_name": "x"}


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("not a url", "looks like postgresql://"),
        ("postgresql://u:hunter2@h:port/d", "looks like postgresql://"),
        ("mysql://u:hunter2@h/d", "scheme 'mysql'"),
        ("postgresql+psycopg://u:hunter2@h/d", "use postgresql://"),
        ("postgresql://h/d?sslmod=require&password=hunter2", "did you mean 'sslmode'"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(url: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert hint in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_shown_url_has_no_password() -> None:
    url = parse_url("postgresql://u:hunter2@h/d?password=hunter2&ssl=require")
    assert redact(url) == "postgresql+asyncpg://u:***@h/d?ssl=require"


async def test_the_server_tells_what_matters(engine: AsyncEngine) -> None:
    info = await probe(engine)
    assert info.version.startswith("18.")
    assert info.settings["fsync"] == info.settings["synchronous_commit"] == "on"
    assert info.settings["max_connections"] == "500"
    assert 400 < info.free_connections < 500


async def told(url: str) -> str:
    engine = create_engine(parse_url(url), pool_size=1)
    try:
        with pytest.raises(DatabaseError) as caught:
            await probe(engine)
    finally:
        await engine.dispose()
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


async def test_unreachable_databases_are_explained(server: EmbeddedServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        port = taken.getsockname()[1]
        message = await told(f"postgresql://u:hunter2@127.0.0.1:{port}/d")
    assert f"nothing listens at 127.0.0.1:{port}" in message
    url = make_url(server.url)
    absent = url.set(database="absent").render_as_string(hide_password=False)
    assert "database 'absent' does not exist" in await told(absent)
    nobody = url.set(username="absent").render_as_string(hide_password=False)
    assert 'role "absent" does not exist' in await told(nobody)
    assert "no server's socket" in await told("postgresql://u:hunter2@/d?host=/nowhere")
    assert "not known" in await told("postgresql://u:hunter2@host.invalid/d")
