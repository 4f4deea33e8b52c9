"""The tester of the package `differential` finds what was broken on purpose."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from async_loader.postgres import EmbeddedServer
from tests.compliance.differential.campaign import Campaign
from tests.compliance.differential.mutants import MUTANTS, Mutant
from tests.compliance.differential.performing import Performer


@pytest.fixture
def campaign(server: EmbeddedServer, driver: str, seed: int) -> Iterator[Campaign]:
    """Examples of one driver in databases of their own."""
    performer = Performer(server.url, driver, f"_{seed}_{os.getpid()}")
    yield Campaign(performer)
    performer.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("driver", "seed"), [("asyncpg", 1)])
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_fault_is_found(
    mutant: Mutant, campaign: Campaign, driver: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.apply(monkeypatch)
    assert campaign.run(300, seed, shrink=False) is not None
