"""A GRANT that is advised gives what is lacking."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from async_loader.database.postgresql import unreachable


class DeniedError(Exception):
    sqlstate = "42501"


@pytest.mark.parametrize(
    ("message", "statement", "advice"),
    [
        ("permission denied for table run", "SELECT run.id FROM async_loader_jobs.run",
         "GRANT SELECT, INSERT, UPDATE, DELETE ON async_loader_jobs.run TO clerk is needed"),
        ("permission denied for table song", "SELECT 1 FROM song",
         "GRANT SELECT, INSERT, UPDATE, DELETE ON song TO clerk is needed"),
        ("permission denied for schema async_loader_jobs", "SELECT 1",
         "GRANT USAGE ON SCHEMA async_loader_jobs TO clerk is needed"),
        ("permission denied for schema public", "\nCREATE TABLE track ()",
         "GRANT CREATE, USAGE ON SCHEMA public TO clerk is needed"),
        ("permission denied for database shop", "CREATE SCHEMA x",
         "GRANT CREATE ON DATABASE shop TO clerk is needed"),
        ("permission denied for sequence song_id_seq", "INSERT INTO song",
         "GRANT USAGE ON SEQUENCE song_id_seq TO clerk is needed"),
        ('permission denied for database "shop"', "",
         "GRANT CONNECT ON DATABASE shop TO clerk is needed"),
        ("permission denied for table my song", 'SELECT 1 FROM "my song"',
         'GRANT SELECT, INSERT, UPDATE, DELETE ON "my song" TO clerk is needed'),
        ("permission denied for table Song", 'SELECT 1 FROM "Shop"."Song"',
         'GRANT SELECT, INSERT, UPDATE, DELETE ON "Shop"."Song" TO clerk is needed'),
        ("must be owner of table song", "ALTER TABLE song", "its owner may"),
    ],
)  # fmt: skip
def test_the_advice_is_of_what_was_denied(message: str, statement: str, advice: str) -> None:
    error = DBAPIError(statement, {}, DeniedError(message))
    url = make_url("postgresql+asyncpg://clerk@host/shop")
    assert str(unreachable(error, url)).endswith(f"{message}; {advice}")


def test_a_role_that_needs_quotes_has_them() -> None:
    error = DBAPIError("CREATE SCHEMA x", {}, DeniedError("permission denied for database my-shop"))
    url = make_url("postgresql+asyncpg://my-app@host/my-shop")
    assert str(unreachable(error, url)).endswith(
        'GRANT CREATE ON DATABASE "my-shop" TO "my-app" is needed'
    )
