"""A proxy before the service: who asks, by which name, and below which path."""

from __future__ import annotations

from typing import Any

import pytest

from async_loader.errors import ConfigurationError
from async_loader.service.tokens import hashed, new_token
from async_loader.settings.sources import load

from .conftest import Service, Serving

TOKEN = new_token()
KNOWN = f"ci={hashed(TOKEN)}"
PROXY = "127.0.0.1"


async def who(service: Service, **headers: str) -> str:
    """Return what the audit has of a login that came with these headers."""
    sent = {f"X-Forwarded-{name.title()}": value for name, value in headers.items()}
    answer = await service.client.post("/api/session", json={"token": TOKEN}, headers=sent)
    assert answer.status_code == 200, answer.text
    entries = (await service.client.get("/api/audit")).json()["entries"]
    return str(entries[0]["who"])


async def test_a_trusted_proxy_says_who_asks(serving: Serving) -> None:
    async with serving(token=KNOWN, trusted_proxy=f"{PROXY},10.0.0.0/8") as service:
        assert await who(service) == "ci (127.0.0.1)"
        assert await who(service, For="203.0.113.9") == "ci (203.0.113.9)"
        assert await who(service, For="2001:db8::7") == "ci (2001:db8::7)"
        # What a client itself has sent is further left; behind it are proxies of ours.
        assert await who(service, For="1.1.1.1, 203.0.113.9, 10.1.1.1") == "ci (203.0.113.9)"
        assert await who(service, For="1.1.1.1, nonsense, 10.1.1.1") == "ci (10.1.1.1)"
        assert await who(service, For="10.1.1.1") == "ci (10.1.1.1)"


async def test_nobody_else_does(serving: Serving) -> None:
    async with serving(token=KNOWN, trusted_proxy="10.0.0.0/8") as service:
        assert await who(service, For="203.0.113.9") == "ci (127.0.0.1)"
        port = service.client.base_url.port
        for host, status in ((f"127.0.0.1:{port}", 421), ("attacker.example", 421)):
            headers = {"Host": "attacker.example", "X-Forwarded-Host": host}
            assert (await service.client.get("/", headers=headers)).status_code == status


async def test_limits_are_each_clients_own(serving: Serving) -> None:
    async with serving(trusted_proxy=PROXY, request_rate="5/s") as service:

        async def ask(client: str) -> int:
            headers = {"X-Forwarded-For": client}
            return (await service.client.get("/api/runs", headers=headers)).status_code

        assert 429 in [await ask("203.0.113.66") for _ in range(30)]
        assert await ask("198.51.100.7") == 200


async def test_a_trusted_proxy_says_by_which_name(serving: Serving) -> None:
    async with serving(trusted_proxy=PROXY, allowed_host="load.example") as service:
        for host, status in (("load.example", 200), ("attacker.example", 421)):
            headers = {"Host": "inside:1234", "X-Forwarded-Host": host}
            answer = await service.client.get("/api/runs", headers=headers)
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Proto": "https"}, {"Secure", "Path=/"}),
        ({"Proto": "http, https"}, {"Secure"}),
        ({"Prefix": "/load"}, {"Path=/load/"}),
        ({"Prefix": "/tools/load/"}, {"Path=/tools/load/"}),
        ({"Prefix": "//attacker.example"}, {"Path=/"}),
        ({"Prefix": "/load; Domain=x"}, {"Path=/"}),
    ],
)
async def test_cookies_are_for_where_the_browser_is(
    serving: Serving, headers: dict[str, str], told: set[str]
) -> None:
    async with serving(token=KNOWN) as service:
        sent = {f"X-Forwarded-{name}": value for name, value in headers.items()}
        answer = await service.client.post("/api/session", json={"token": TOKEN}, headers=sent)
        found = set(answer.headers["set-cookie"].split("; "))
        assert told <= found
        assert ("Secure" in found) == ("Secure" in told)


async def test_below_a_path_all_is_below_it(service: Service) -> None:
    run: dict[str, Any] = {"scenario": "nothing", "target": "one"}
    prefix = {"X-Forwarded-Prefix": "/load"}
    started = await service.client.post("/api/runs", json=run, headers=prefix)
    assert started.headers["location"] == f"/load/api/runs/{started.json()['id']}"
    for path in ("/", "/history", "/compare"):
        page = (await service.client.get(path)).text
        assert 'href="/' not in page
        assert 'src="/' not in page


def test_a_proxy_is_an_address() -> None:
    with pytest.raises(ConfigurationError, match=r"--trusted-proxy.*an address or a network"):
        load(["serve", "--trusted-proxy", "proxy.example"])
