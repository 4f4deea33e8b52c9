"""URLs, and what a user is told of a database that cannot be used."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import ConfigurationError, DatabaseError
from async_loader.database.embedded import EmbeddedServer
from async_loader.database.postgresql import create_engine, create_sync_engine, probe
from async_loader.database.urls import parse_url, redact


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h:5433/d",
        "postgres://u@h:5433/d",
        "postgresql+asyncpg://u@h:5433/d",
        " postgresql://u@h:5433/d\n",  # of a file, or of a secret that ends in a line's end
    ],
)
def test_urls_are_for_asyncpg(url: str) -> None:
    assert str(parse_url(url)) == "postgresql+asyncpg://u@h:5433/d"


@pytest.mark.parametrize("password", ["hun@ter2", "hun@ter2@", "a:b/c@ter2"])
def test_no_part_of_a_password_with_signs_in_it_is_shown(password: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as refused:
        parse_url(f"postgresql://u:{password}@h:5433/d")
    assert "ter2" not in str(refused.value)


def test_libpq_parameters_are_understood() -> None:
    url = parse_url("postgresql://h/d?sslmode=require&connect_timeout=3&application_name=x")
    assert dict(url.query) == {"ssl": "require", "timeout": "3", "application_name": "x"}


@pytest.mark.parametrize(
    "parameters",
    [
        "statement_cache_size=0&max_cached_statement_lifetime=0&max_cacheable_statement_size=0",
        "prepared_statement_cache_size=0",
        "sslmode=prefer&ssl_min_protocol_version=TLSv1.2&gssencmode=disable",
        "direct_tls=false&channel_binding=prefer",
        "connect_timeout=3&command_timeout=5.5",
        "connect_timeout=0&fallback_application_name=mine",
        "target_session_attrs=read-write",
    ],
)
async def test_parameters_as_teams_have_them_work(server: EmbeddedServer, parameters: str) -> None:
    together = "&" if "?" in server.url else "?"
    url = parse_url(f"{server.url}{together}{parameters}")
    engine = create_engine(url, pool_size=1)
    try:
        assert (await probe(engine)).product == "PostgreSQL"
    finally:
        await engine.dispose()
    sync = create_sync_engine(url, pool_size=1)
    with sync.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    sync.dispose()


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("sslmode=strict", "sslmode is one of disable, allow, prefer, require"),
        ("ssl=true", "ssl is one of disable"),
        ("statement_cache_size=many", "statement_cache_size is a whole number"),
        ("command_timeout=soon", "command_timeout is a number of seconds"),
        ("direct_tls=perhaps", "direct_tls is true or false"),
        ("sslmode=prefer&direct_tls=true", "direct TLS needs sslmode=require"),
        ("target_session_attrs=leader", "target_session_attrs is one of any, primary"),
        ("sslrootcert=/nowhere/ca.pem", "sslrootcert names a file that is not there"),
        ("sslrootcert=" + __file__, "sslrootcert names a file that holds no certificate"),
        ("sslkey=" + __file__, "sslkey needs an sslcert"),
        ("options=-cjit%3Doff", "options is not taken"),
        ("service=staging", "service is not taken"),
        ("keepalives_idle=30", "keepalives_idle is libpq's"),
        ("channel_binding=require", "channel_binding can only be"),
        ("sslmode=require&sslmode=disable", "sslmode is given twice"),
        ("port=0", "port is a number from 1 to 65535"),
        ("host=a,b&port=1,2,3", "as many ports as hosts"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(f"postgresql://u:hunter2@/d?password=hunter2&{parameters}")
    assert f"`database_url`: {told}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_verifies_a_server_needs_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(ConfigurationError, match="sslmode=verify-full needs a root certificate"):
        parse_url("postgresql://h/d?sslmode=verify-full")
    assert parse_url("postgresql://h/d?sslrootcert=system").query["ssl"] == "verify-full"


@pytest.mark.parametrize(
    "several",
    [
        "postgresql://u:a,b/c@h1:5433,h2/d?ssl=prefer",
        "postgresql://u:a,b/c@/d?host=h1,h2&port=5433,5432&ssl=prefer",
        "postgresql://u:a,b/c@/d?ssl=prefer&host=h1:5433&host=h2:5432",
    ],
)
def test_several_hosts_in_each_form(several: str) -> None:
    url = parse_url(several)
    assert (url.password, url.database, url.query["ssl"]) == ("a,b/c", "d", "prefer")
    assert url.query["host"] == ("h1:5433", "h2:5432")


async def test_the_first_host_that_answers_is_used(server: EmbeddedServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        there = make_url(server.url)
        host, port = there.query["host"], there.port or there.query.get("port", 5432)
        several = f"127.0.0.1:{taken.getsockname()[1]},{quote(str(host), safe='')}:{port}"
        engine = create_engine(
            parse_url(f"postgresql://{there.username}@{several}/{there.database}"), pool_size=1
        )
        try:
            assert (await probe(engine)).product == "PostgreSQL"
        finally:
            await engine.dispose()


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
