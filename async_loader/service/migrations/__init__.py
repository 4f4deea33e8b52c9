"""How the history's tables came to be what they are: what Alembic runs, oldest first."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from ...errors import ConfigurationError

VERSION_TABLE = "async_loader_service_version"


def migrate(connection: Connection) -> None:
    """
    Bring the tables to the newest form, in the connection's transaction.

    Raises `ConfigurationError` for tables of a newer version of this package.
    """
    config = Config()
    config.set_main_option("script_location", "async_loader.service:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the history is of another version of async_loader: {error}"
        ) from None
