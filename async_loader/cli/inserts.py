"""Inserting the same rows in every way there is."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..inserts.bench import Measure, measure_inserts
from ..load.run_database import server_url
from ..settings.run import InsertsSettings
from ..settings.spec import server_of


async def measure(settings: InsertsSettings) -> tuple[Measure, ...]:
    """Return what each way to insert the settings' rows costs, on a schema of its own."""
    async with server_url(server_of(settings), lambda _phase: None) as url:
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError("inserts are measured on PostgreSQL; others stay stock")
        return await measure_inserts(
            url,
            shape=settings.shape,
            rows=settings.rows,
            latency=settings.latency,
            turns=settings.rounds,
        )
