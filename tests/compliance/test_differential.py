"""Batching changes nothing, on models that nobody here wrote; see the package `differential`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import sqlalchemy

from async_loader.database.embedded import EmbeddedServer
from tests.compliance.differential.campaign import Campaign
from tests.compliance.differential.mutants import MUTANTS
from tests.compliance.differential.performing import Performer

SHARE = 35  # examples a test: 210 for each driver in every run of the suite


@pytest.fixture
def campaign(server: EmbeddedServer, driver: str, seed: int) -> Iterator[Campaign]:
    """Examples of one driver in databases of their own."""
    performer = Performer(server.url, driver, f"_{seed}_{os.getpid()}")
    yield Campaign(performer)
    performer.close()


@pytest.mark.timeout(600)  # a machine that does other things takes that long
@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_batching_changes_nothing(campaign: Campaign, driver: str, seed: int) -> None:
    _check(campaign, driver, seed, SHARE)


def _check(campaign: Campaign, driver: str, seed: int, count: int) -> None:
    failure = campaign.run(count, seed)
    tally = campaign.tally
    assert failure is None, (
        f"SQLAlchemy {sqlalchemy.__version__}, {driver}, seed {seed}: {failure.difference}\n"
        f"{failure.example.script}"
    )
    assert tally.performed == count
    # Else it shows nothing.
    assert tally.batched >= count // 10


IN_EACH_RUN = "keys_of_others"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize(
    ("name", "driver"),
    [
        pytest.param(name, driver, marks=() if name == IN_EACH_RUN else pytest.mark.soak)
        for name, mutant in MUTANTS.items()
        for driver in mutant.drivers
    ],
)
def test_a_fault_is_found(
    name: str, campaign: Campaign, driver: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS[name].apply(monkeypatch)
    assert campaign.run(1000, seed, shrink=False) is not None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_still_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it breaks has that name yet: else the command would break nothing in silence."""
    MUTANTS[name].apply(monkeypatch)
