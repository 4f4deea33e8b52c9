"""A database of its own for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.engine import make_url


@pytest.fixture
async def database_url() -> AsyncIterator[str]:
    """Yield the URL of an empty database on the server of ASYNC_LOADER_TEST_URL."""
    server = os.environ.get("ASYNC_LOADER_TEST_URL")
    if not server:
        pytest.skip("ASYNC_LOADER_TEST_URL names no server")
    url = make_url(server).set(drivername="postgresql")
    name = f"inserts_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(url.render_as_string(hide_password=False))
    await admin.execute(f'CREATE DATABASE "{name}"')
    try:
        target = url.set(drivername="postgresql+asyncpg", database=name)
        yield target.render_as_string(hide_password=False)
    finally:
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()
