"""Which targets answer: looked at now and then, and never while a run is on one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from sqlalchemy import text

from ..errors import AsyncLoaderError
from .path_redaction import without_folders
from .targets import Targets

log = logging.getLogger("async_loader.service")

_LOOK_EVERY = 15.0
_PATIENCE = 5.0


class TargetHealth:
    """
    `problems` of the targets that were looked at, by name: None for one that answers.

    A target that is a file, or our own server before it is needed, is not looked at: that would
    make it.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self.problems: dict[str, str | None] = {}

    async def keep(self, busy: Callable[[], Collection[str]]) -> None:
        """Look again and again, until cancelled; `busy` tells the targets with a run."""
        while True:
            names = [name for name in self._targets.names if self._targets.is_remote(name)]
            taken = busy()
            await asyncio.gather(*(self._look(name) for name in names if name not in taken))
            await asyncio.sleep(_LOOK_EVERY)

    async def _look(self, name: str) -> None:
        try:
            async with (
                asyncio.timeout(_PATIENCE),
                self._targets.engine(name) as engine,
                engine.connect() as connection,
            ):
                await connection.execute(text("SELECT 1"))
        except TimeoutError:
            found: str | None = f"it does not answer within {_PATIENCE:g} s"
        except AsyncLoaderError as error:
            found = without_folders(str(error))
        except Exception as error:  # a driver's own
            found = f"it cannot be used: {type(error).__name__}"
        else:
            found = None
        if found != self.problems.get(name):
            log.warning("target %s: %s", name, found or "it answers again")
        self.problems[name] = found
