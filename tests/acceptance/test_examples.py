"""The example: a shop and its FastAPI application under load, through their own sessions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from .conftest import ROOT, Command


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A copy of the shop in the folder that the command is run in."""
    return Path(shutil.copytree(ROOT / "tests" / "examples" / "shop", tmp_path / "shop"))


def load(command: Command, target: str, url: str, *argv: str) -> dict[str, Any]:
    done = command(
        "--workload", target, "--progress", "none", "--concurrency", "5", "--out", "json=-", *argv,
        SHOP_DATABASE_URL=url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


async def test_the_shop_seeds_once_and_clears_up(
    command: Command, database_url: str, engine: AsyncEngine, shop: Path
) -> None:
    for _ in range(2):
        result = load(command, "shop.loadtest:workload", database_url, "--ops", "150")
        assert result["operations"]["completed"] == 150
        assert {c["failed"] for c in result["checks"].values()} == {0}
        assert set(result["checks"]) == {
            "a page is full", "an order has a number", "orders have lines",
        }  # fmt: skip
        assert result["repeated_statements"] == []
        assert (
            result["server_side"]["database"]["commits"]
            >= (result["by_operation"]["checkout"]["count"])
        )
    async with engine.connect() as connection:
        counted = await connection.execute(
            text(
                "SELECT (SELECT count(*) FROM shop_product), (SELECT count(*) FROM shop_order),"
                " (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader%')"
            )
        )
        assert counted.one() == (1_000, 0, 0)


def test_what_an_applications_dependency_does_is_split_by_operation(
    command: Command, database_url: str, shop: Path
) -> None:
    result = load(command, "shop.api_loadtest:workload", database_url, "--ops", "60")
    browse, order = (result["by_operation"][n] for n in ("GET /products", "POST /orders"))
    assert browse["count"] + order["count"] == 60
    assert browse["statements"]["mean"] == 1
    assert order["statements"]["mean"] == 3
    assert order["time_split_ms"]["database"]["mean"] > 0
    assert result["pool"]["peak_in_use"] > 0


def test_an_n_plus_one_in_the_application_is_named(
    command: Command, database_url: str, shop: Path
) -> None:
    """The basket of many products, each with its own UPDATE."""
    test = shop / "loadtest.py"
    test.write_text(test.read_text().replace("k=op.rng.randint(1, 3)", "k=8"))
    result = load(command, "shop.loadtest:workload", database_url, "--ops", "80")
    (repeat,) = result["repeated_statements"]
    number = (shop / "orders.py").read_text().splitlines().index(
        "        taken = await session.scalar("
    ) + 1  # fmt: skip
    assert repeat["operation"] == "checkout"
    assert repeat["statement"].startswith("UPDATE shop_product SET stock=")
    assert repeat["source"] == f"shop/orders.py:{number} in checkout"
    assert repeat["most"] == repeat["mean"] == 8
    assert repeat["operations"] == result["by_operation"]["checkout"]["count"]
